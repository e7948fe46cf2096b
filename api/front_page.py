"""GET /: the first digits, and the way to everything else. One page, with nothing from outside."""

import base64
import hashlib
import html
from typing import Final

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from api.security_headers import PAGE, POLICY

SEEDS: Final = range(64)

_HERE: Final = "%here%"

_STYLE: Final = """
  :root { color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }
  body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
  .wall { display: grid; grid-template-columns: repeat(8, 1fr); gap: 2px; background: #000 }
  .wall img { display: block; width: 100%; height: auto; image-rendering: pixelated }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .75rem; border: 1px solid; border-radius: .25rem }
"""

_WALL: Final = "\n".join(
    f'<a href="/digits/{seed}.png?scale=8"><img src="/digits/{seed}.png" width="28" height="28" alt="seed {seed}"></a>'
    for seed in SEEDS
)

_PAGE: Final = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>digitgan</title>
<link rel="icon" href="/digits/7.png">
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>digitgan</h1>
<p>Handwritten digits that nobody wrote: the seeds {SEEDS[0]} to {SEEDS[-1]}, made by the generator as you look.</p>
<div class="wall">
{_WALL}
</div>
<h2>The same from a shell</h2>
<pre><code>curl -o 7.png {_HERE}/digits/7.png
curl -o sheet.png {_HERE}/generate -H 'Content-Type: application/json' -H 'Accept: image/png' -d '{{"count": 100}}'
curl {_HERE}/score -H 'Content-Type: image/png' --data-binary @7.png</code></pre>
<p><a href="/docs">The API to click through</a> · <a href="/models">Models</a> ·
<a href="/healthz/ready">Health</a> · <a href="/metrics">Metrics</a></p>
</main>
</body>
</html>
"""

_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_POLICY: Final = PAGE.replace("style-src 'self'", f"style-src 'sha256-{_STYLE_HASH}'")

router = APIRouter()


@router.get("/", include_in_schema=False)
async def front_page(request: Request) -> HTMLResponse:
    """A wall of digits."""
    here = html.escape(str(request.base_url).rstrip("/"))
    return HTMLResponse(_PAGE.replace(_HERE, here), headers={POLICY: _POLICY})
