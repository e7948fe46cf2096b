// @ts-check
// The gateway, and the same requests in words for a shell and for Python.

/**
 * One request. What is sent and what the recipes print both come from here, so they can't differ.
 * @typedef {object} Request
 * @property {string} path
 * @property {string} [accept]
 * @property {Record<string, unknown>} [body] sent as JSON; none: GET
 * @property {string} [file] where a recipe puts the answer; none: it is printed
 * @property {string} [upload] a file that a recipe sends in place of the pictures in `body.images`
 */

export class Problem extends Error {
  /** @param {number} status @param {{title?: string, detail?: string, errors?: {pointer?: string}[]}} document */
  constructor(status, document) {
    super(document.detail || document.title || `status ${status}`);
    this.status = status;
    this.places = (document.errors || []).map((error) => error.pointer);
  }
}

/** The address of a path: below the page's own, also behind a proxy that strips a prefix. @param {string} path */
export const address = (path) => new URL(`.${path}`, document.baseURI).href;

/**
 * Sends a request. Throws Problem if the gateway says no, and an Error in words if nobody answers.
 * @param {Request} request
 * @param {AbortSignal} [signal]
 * @returns {Promise<Response>}
 */
export async function send({ path, accept = "application/json", body }, signal) {
  let answer;
  try {
    answer = await fetch(address(path), {
      method: body ? "POST" : "GET",
      headers: { Accept: accept, ...(body && { "Content-Type": "application/json" }) },
      body: body && JSON.stringify(body),
      signal,
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Error("The gateway does not answer.");
  }
  if (!answer.ok) throw new Problem(answer.status, await answer.json().catch(() => ({})));
  const model = answer.headers.get("X-Model");
  if (model === "generator") {
    const version = Number(answer.headers.get("X-Model-Version"));
    document.dispatchEvent(new CustomEvent("generator", { detail: version }));
  }
  return answer;
}

/**
 * Sends a request and saves the answer as a file.
 * @param {Request} request
 */
export async function download(request) {
  const blob = await (await send(request)).blob();
  save(blob, request.file || "answer");
  return blob;
}

/** @param {Blob} blob @param {string} name */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** @param {string} text */
const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;

/** @param {Request} request */
export function curl({ path, accept, body, file, upload }) {
  const words = ["curl -s", address(path)];
  if (body && upload) {
    words.push(`-F images=@${upload}`);
    for (const [name, value] of Object.entries(body)) if (name !== "images") words.push(`-F ${name}=${value}`);
  } else if (body) {
    words.push("-H 'Content-Type: application/json'");
    if (accept) words.push(`-H 'Accept: ${accept}'`);
    words.push(`-d ${quoted(JSON.stringify(body))}`);
  }
  if (file) words.push(`-o ${file}`);
  return words.join(" ");
}

/** @param {unknown} value @returns {string} the value as Python writes it */
function literal(value) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(literal).join(", ")}]`;
  if (typeof value === "object")
    return `{${Object.entries(value)
      .map(([name, one]) => `${JSON.stringify(name)}: ${literal(one)}`)
      .join(", ")}}`;
  return JSON.stringify(value);
}

/** @param {Request} request */
export function python({ path, accept, body, file, upload }) {
  const npy = accept === "application/x-npy";
  const saved = file && !npy;
  const modules = ["json", "urllib.request", ...(upload ? ["base64"] : []), ...(npy ? ["io"] : [])];
  if (saved || upload) modules.push("pathlib");
  modules.sort();
  const lines = [`import ${modules.join(", ")}`, ...(npy ? ["import numpy"] : []), ""];
  if (upload) lines.push(`picture = base64.b64encode(pathlib.Path(${JSON.stringify(upload)}).read_bytes()).decode()`);
  lines.push("request = urllib.request.Request(", `    ${JSON.stringify(address(path))},`);
  if (body) {
    const text = upload ? literal({ ...body, images: 0 }).replace('"images": 0', '"images": [picture]') : literal(body);
    lines.push(`    json.dumps(${text}).encode(),`);
    lines.push(`    {"Content-Type": "application/json"${accept ? `, "Accept": ${JSON.stringify(accept)}` : ""}},`);
  }
  lines.push(")", "with urllib.request.urlopen(request) as answer:");
  if (npy) lines.push("    digits = numpy.load(io.BytesIO(answer.read()))", "print(digits.shape)");
  else if (saved) lines.push(`    pathlib.Path(${JSON.stringify(file)}).write_bytes(answer.read())`);
  else lines.push("    print(json.load(answer))");
  return lines.join("\n");
}
