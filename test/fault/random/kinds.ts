import { fixtureAgent } from "../../helpers/agents.js";

/** What an agent of the suite is, and so how it may end. */
export interface Kind {
  readonly template_id: string;
  /** The words of `test/fixtures/agents/restless.sh`. */
  readonly is: string;
  /** It ends by itself, after so many lines and with this code. */
  readonly ends?: { afterLines: number; code: number };
  /** Started again when it ends. */
  readonly returns: boolean;
}

/** A child that clears its environment and leaves the session is only found where there are cgroups. */
export function kindsWith({ cgroups }: { cgroups: boolean }): Kind[] {
  const cleared = cgroups ? " cleared" : "";
  return [
    { template_id: "Steady", is: "", returns: true },
    { template_id: "Family", is: `family${cleared}`, returns: true },
    { template_id: "Stubborn", is: `family stubborn${cleared}`, returns: true },
    { template_id: "Crashing", is: "", ends: { afterLines: 60, code: 7 }, returns: true },
    {
      template_id: "CrashingFamily",
      is: `family${cleared}`,
      ends: { afterLines: 40, code: 41 },
      returns: true,
    },
    { template_id: "Once", is: "", ends: { afterLines: 8, code: 3 }, returns: false },
  ];
}

/** Of as many runs' output as a round can have: nothing may be pruned before it was looked at. */
const KEPT_RUNS = 200;

/** Its template. With `rotate` its output is cut into archives of that size. */
export function templateOf(kind: Kind, evidence: string, rotate: string | undefined) {
  const { afterLines = 0, code = 0 } = kind.ends ?? {};
  return {
    template_id: kind.template_id,
    ...fixtureAgent("restless.sh", evidence, kind.is, String(afterLines), String(code)),
    restart: {
      policy: kind.returns ? "always" : "never",
      max_restarts: 1_000_000,
      backoff: { min: "1ms", max: "400ms" },
    },
    stop: { grace: "300ms" },
    logs: { keep: KEPT_RUNS, ...(rotate === undefined ? {} : { max_size: rotate }) },
  };
}
