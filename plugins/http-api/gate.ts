import { OpenStarryError } from "../../core/index.js";

export interface GateRules {
  transport: "tcp" | "unix";
  /** The port that the API listens at. */
  port: number;
  /** Further names for the Host header, as configured. */
  allowedHosts: readonly string[];
}

export interface GateRequest {
  readonly url?: string | undefined;
  /** Names and values in turns, as they came. */
  readonly rawHeaders: readonly string[];
}

const LOOPBACK_NAMES = ["localhost", "127.0.0.1", "[::1]"];

/**
 * What is refused before anything else is looked at, on every path and method: a foreign Host (DNS
 * rebinding), a foreign Origin or a cross-site fetch (a web page), and requests that two readers could
 * understand differently.
 */
export function refuse(request: GateRequest, rules: GateRules): OpenStarryError | undefined {
  const host = valuesOf(request, "host");
  if (!request.url?.startsWith("/")) {
    return invalid("the request target is not a path", "ask for a path such as /agents");
  }
  if (host.length > 1) return invalid("there is more than one Host header", "send one Host header");
  if (valuesOf(request, "authorization").length > 1) {
    return invalid("there is more than one Authorization header", "send one Authorization header");
  }
  return refuseHost(host[0], rules) ?? refuseOrigin(request, host[0]);
}

function refuseHost(host: string | undefined, rules: GateRules): OpenStarryError | undefined {
  if (host === undefined || host === "") {
    if (rules.transport === "unix") return undefined;
    return invalid("there is no Host header", "send the header 'Host: localhost'");
  }
  const names = [...LOOPBACK_NAMES, ...rules.allowedHosts.map((name) => name.toLowerCase())];
  const given = host.toLowerCase();
  if (names.some((name) => given === name || given === `${name}:${rules.port}`)) return undefined;
  return new OpenStarryError("host_forbidden", {
    detail: `the Host header is ${quote(host)}`,
    hint: `use http://127.0.0.1:${rules.port}, or add the name to allowed_hosts of http-api`,
  });
}

/** Browsers send these headers and no page can leave them out or change them. */
function refuseOrigin(request: GateRequest, host: string | undefined): OpenStarryError | undefined {
  const foreign = valuesOf(request, "origin").find(
    (origin) => host === undefined || !isOriginOf(origin.toLowerCase(), host.toLowerCase()),
  );
  const site = valuesOf(request, "sec-fetch-site").find((value) => !/^(same-origin|none)$/i.test(value));
  if (foreign === undefined && site === undefined) return undefined;
  return new OpenStarryError("origin_forbidden", {
    detail:
      foreign === undefined
        ? `the request is ${quote(site ?? "")}`
        : `the Origin header is ${quote(foreign)}`,
    hint: "ask from a program, not from a web page",
  });
}

function isOriginOf(origin: string, host: string): boolean {
  return origin === `http://${host}` || origin === `https://${host}`;
}

function valuesOf(request: GateRequest, name: string): string[] {
  return request.rawHeaders.filter(
    (_, index) => index % 2 === 1 && request.rawHeaders[index - 1]?.toLowerCase() === name,
  );
}

function invalid(detail: string, hint: string): OpenStarryError {
  return new OpenStarryError("input_invalid", { detail, hint });
}

function quote(text: string): string {
  return JSON.stringify(text.slice(0, 200));
}
