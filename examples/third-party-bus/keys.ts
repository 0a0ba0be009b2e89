import { createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { linkSync, readFileSync, rmSync, writeFileSync } from "node:fs";

/** Who is at the other end: the daemon, or one run of an agent. */
export type Peer = { kind: "daemon" } | { kind: "agent"; agent: string; run: string };

/** The secret that all keys come from, in a file for the daemon's user alone; made where there is none. */
export function ensureSecret(file: string): string {
  const temporary = `${file}.${randomBytes(6).toString("hex")}`;
  writeFileSync(temporary, randomBytes(32).toString("hex"), { mode: 0o600, flag: "wx" });
  try {
    // Fails where there is one, whole: nobody ever reads half of a secret, or makes a second.
    linkSync(temporary, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  } finally {
    rmSync(temporary);
  }
  return readSecret(file);
}

export function readSecret(file: string): string {
  const secret = readFileSync(file, "utf8");
  if (!/^[0-9a-f]{64}$/.test(secret)) throw new Error(`${file} does not hold the secret that was put there`);
  return secret;
}

/** The key of one peer. It says nothing about the secret, nor about another's key. */
export function keyOf(secret: string, peer: Peer): string {
  const who = peer.kind === "daemon" ? [peer.kind] : [peer.kind, peer.agent, peer.run];
  return createHmac("sha256", Buffer.from(secret, "hex")).update(JSON.stringify(who)).digest("base64url");
}

export function isKeyOf(secret: string, peer: Peer, key: string): boolean {
  const [wanted, given] = [Buffer.from(keyOf(secret, peer)), Buffer.from(key)];
  return wanted.length === given.length && timingSafeEqual(wanted, given);
}
