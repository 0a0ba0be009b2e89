import { OpenStarryError } from "../contracts/errors.js";
import type { Endpoint } from "../contracts/plugin.js";

/** The endpoints that plugins publish. One registry per kernel. */
export interface EndpointRegistry {
  /** Throws `plugin_conflict` when the name is taken. */
  publish(endpoint: Endpoint): void;
  list(): readonly Endpoint[];
}

export function createEndpointRegistry(): EndpointRegistry {
  const endpoints: Endpoint[] = [];
  return {
    publish(endpoint) {
      if (endpoints.some(({ name }) => name === endpoint.name)) {
        throw new OpenStarryError("plugin_conflict", {
          detail: `two plugins publish an endpoint "${endpoint.name}"`,
          hint: "remove one of them from the config",
        });
      }
      endpoints.push(endpoint);
    },
    list: () => endpoints,
  };
}
