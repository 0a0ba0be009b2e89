import { createHash, timingSafeEqual } from "node:crypto";
import { lstatSync } from "node:fs";
import { isOpenStarryError } from "../../core/index.js";
import { readOrCreateSecret, readSecret } from "../kit/secret-file.js";

export interface OperatorToken {
  matches(token: string): boolean;
}

export interface OperatorTokenOptions {
  path: string;
  /** Told why nobody can be the operator at the moment, and `undefined` when that is over. */
  onProblem: (problem: string | undefined) => void;
}

/**
 * The operator's token: the content of a file, looked at again for every token that is checked, so
 * that a new file counts from the next request on. Throws `home_unusable` when the file is unsafe at
 * the start; a file that becomes unsafe or vanishes later makes every token invalid until it is mended.
 */
export function openOperatorToken({ path, onProblem }: OperatorTokenOptions): OperatorToken {
  // Taken before the file is read: a change in between is seen at the next look.
  let seen = fingerprint(path);
  let digest: Buffer | undefined = sha256(readOrCreateSecret(path));
  let problem: string | undefined;
  const settle = (now: string | undefined) => {
    if (now !== problem) onProblem(now);
    problem = now;
  };
  const refresh = () => {
    const now = fingerprint(path);
    if (now === seen) return;
    seen = now;
    digest = undefined;
    try {
      const secret = readSecret(path);
      if (secret !== undefined) digest = sha256(secret);
      settle(secret === undefined ? `${path} is gone: nobody can be the operator` : undefined);
    } catch (error) {
      settle(isOpenStarryError(error) ? error.message : String(error));
    }
  };
  return {
    matches(token) {
      refresh();
      // Digests are of one length: neither content nor length of the token shows in the time it takes.
      return digest !== undefined && timingSafeEqual(sha256(token), digest);
    },
  };
}

/** Changes whenever the file is replaced, rewritten, or its owner or mode is changed. */
function fingerprint(path: string): string {
  const stats = lstatSync(path, { bigint: true, throwIfNoEntry: false });
  return stats ? `${stats.dev}:${stats.ino}:${stats.size}:${stats.mtimeNs}:${stats.ctimeNs}` : "absent";
}

function sha256(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}
