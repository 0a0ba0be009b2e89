import { nearest, OpenStarryError, type Operation } from "../../core/index.js";
import { inputSchema, type JsonSchema } from "./input.js";

/** An operation with its place in the API. */
export interface Route {
  operation: Operation;
  method: string;
  /** As the operation writes it: `/agents/{agent_id}/stop`. */
  path: string;
  /** As fastify writes it: `/agents/:agent_id/stop`, `/state/:namespace/*`. */
  url: string;
  /** The key that `*` stands for. */
  rest?: string;
  schema: JsonSchema | undefined;
}

/** Throws `plugin_conflict` when two operations want the same place. */
export function routesOf(operations: Iterable<Operation>): Route[] {
  const taken = new Map<string, string>();
  const routes: Route[] = [];
  for (const operation of operations) {
    if (!operation.http) continue;
    const { method, path } = operation.http;
    const place = `${method} ${path.replaceAll(/\{\w+(\*?)\}/g, "{$1}")}`;
    const rival = taken.get(place);
    if (rival !== undefined) {
      throw new OpenStarryError("plugin_conflict", {
        detail: `operations ${rival} and ${operation.name} both answer ${method} ${path}`,
        hint: "remove the plugin of one of them from the config",
      });
    }
    taken.set(place, operation.name);
    const rest = /\{(\w+)\*\}$/.exec(path)?.[1];
    const url = path.replace(/\{\w+\*\}$/, "*").replaceAll(/\{(\w+)\}/g, ":$1");
    routes.push({ operation, method, path, url, rest, schema: inputSchema(operation.input) });
  }
  return routes;
}

/** Why no route took the request: another method would have, or the path is nobody's. */
export function explainMiss(
  method: string,
  path: string,
  routes: readonly Route[],
): { error: OpenStarryError; allow?: string } {
  const here = routes.filter((route) => fits(route.path, path));
  const shown = JSON.stringify(path.slice(0, 200));
  if (here.length > 0) {
    const methods = new Set(
      here.flatMap((route) => (route.method === "GET" ? ["GET", "HEAD"] : route.method)),
    );
    const allow = [...methods].sort().join(", ");
    const error = new OpenStarryError("method_not_allowed", {
      detail: `${shown} does not take ${method}`,
      hint: `it takes ${allow}`,
    });
    return { error, allow };
  }
  // A route of another method would answer the one who goes there with 405.
  const wanted = method === "HEAD" ? "GET" : method;
  const guess = nearest(
    path,
    routes.filter((route) => route.method === wanted).map((route) => filledIn(route.path, path)),
  );
  const hint = guess === undefined ? "GET /openapi.json lists what there is" : `did you mean ${guess}?`;
  return { error: new OpenStarryError("not_found", { detail: `there is nothing at ${shown}`, hint }) };
}

function fits(pattern: string, path: string): boolean {
  const wanted = pattern.split("/");
  const given = path.split("/");
  const open = /\{\w+\*\}$/.test(pattern);
  if (open ? given.length < wanted.length : given.length !== wanted.length) return false;
  return wanted.every((part, index) => part.startsWith("{") || part === given[index]);
}

/** The pattern with the path's own parts where it takes any, so that only the fixed parts differ. */
function filledIn(pattern: string, path: string): string {
  const given = path.split("/");
  return pattern
    .split("/")
    .map((part, index) => (part.startsWith("{") ? (given[index] ?? part) : part))
    .join("/");
}
