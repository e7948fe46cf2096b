// A file of its own, because the page's Content-Security-Policy allows nothing inline.
const spec = await (await fetch("openapi.json")).json();
spec.servers = [{ url: new URL(".", document.baseURI).href }]; // Swagger UI doesn't resolve the relative one
SwaggerUIBundle({ spec, dom_id: "#swagger-ui", deepLinking: true });
