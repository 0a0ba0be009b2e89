import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";

/** Who is at the other end: the daemon, or one run of an agent. */
export type Peer = { kind: "daemon" } | { kind: "agent"; agent: string; run: string };

/** Reads the secret that all keys come from. The broker has only Node, and so does not use the daemon's kit. */
export function readSecret(file: string): string {
  const secret = readFileSync(file, "utf8").trim();
  if (!/^[\w-]{43,}$/.test(secret))
    throw new Error(`${file} does not hold a secret of 43 or more characters of base64url`);
  return secret;
}

/** The key of one peer. It says nothing about the secret, nor about another's key. */
export function keyOf(secret: string, peer: Peer): string {
  const who = peer.kind === "daemon" ? [peer.kind] : [peer.kind, peer.agent, peer.run];
  return createHmac("sha256", Buffer.from(secret, "base64url"))
    .update(JSON.stringify(who))
    .digest("base64url");
}

export function isKeyOf(secret: string, peer: Peer, key: string): boolean {
  const [wanted, given] = [Buffer.from(keyOf(secret, peer)), Buffer.from(key)];
  return wanted.length === given.length && timingSafeEqual(wanted, given);
}
