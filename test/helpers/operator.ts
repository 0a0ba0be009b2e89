import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type Answer, ask } from "./http-request.js";

/** Asks a daemon over its port, with the operator's token, and keeps every answer as text. */
export interface Operator {
  readonly answers: string[];
  get(path: string): Promise<Answer>;
  post(path: string, body: object, headers?: Record<string, string>): Promise<Answer>;
  delete(path: string): Promise<Answer>;
}

export function operatorOf(home: string): Operator {
  const { port } = JSON.parse(readFileSync(join(home, "daemon.json"), "utf8"));
  const token = readFileSync(join(home, "token"), "utf8").trim();
  const answers: string[] = [];
  const call = async (method: string, path: string, more: object = {}): Promise<Answer> => {
    const answer = await ask({ at: port, token, method, path, ...more });
    answers.push(answer.text);
    return answer;
  };
  return {
    answers,
    get: (path) => call("GET", path),
    post: (path, body, headers = {}) => call("POST", path, { body, headers }),
    delete: (path) => call("DELETE", path),
  };
}
