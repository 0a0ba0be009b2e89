import type { TemplateBody } from "./template.js";

/**
 * A process that a plugin hosts for the agents, such as a broker or a database. It is run like an agent,
 * under the id `svc:NAME`: restarted, logged, adopted by the next daemon. It is asked for by its plugin
 * alone: it counts in no quota, has no token, is told no `OPENSTARRY_<NAME>_URL`, and nobody else may
 * start, stop or signal it.
 */
export interface ServiceSpec {
  /**
   * What is run, as a template file says it; paths are absolute. No secret may stand in it: it is journaled,
   * and arguments are seen by everybody on the machine.
   */
  readonly template: TemplateBody;
}
