import http from "node:http";

/**
 * Asks the API at a port of this machine. Answers `(method, path, body?) => {status, body}`, where bodies are
 * JSON. `maxSockets` connections are kept open, 1 unless said otherwise: one request after another.
 */
export function client(port, token, { maxSockets = 1 } = {}) {
  const agent = new http.Agent({ keepAlive: true, maxSockets });
  const call = (method, path, body) =>
    new Promise((resolve, reject) => {
      const text = body && JSON.stringify(body);
      const headers = {
        ...(token ? { authorization: `Bearer ${token}` } : {}),
        ...(text ? { "content-type": "application/json", "content-length": Buffer.byteLength(text) } : {}),
      };
      const request = http.request({ host: "127.0.0.1", port, method, path, headers, agent }, (response) => {
        let answer = "";
        response.setEncoding("utf8").on("data", (chunk) => {
          answer += chunk;
        });
        response.on("end", () => resolve({ status: response.statusCode, body: JSON.parse(answer) }));
      });
      request.on("error", reject);
      request.end(text);
    });
  /** Closes what is kept. */
  call.end = () => agent.destroy();
  return call;
}
