/** cosmiconfig's explorer, without the reading of a config for cosmiconfig itself. */
declare module "cosmiconfig/dist/Explorer.js" {
  import type { CosmiconfigResult, Options } from "cosmiconfig";
  export class Explorer {
    constructor(options: Options & { moduleName: string });
    load(file: string): Promise<CosmiconfigResult>;
  }
}
