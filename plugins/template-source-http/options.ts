import { isIPv4 } from "node:net";
import { z } from "zod";
import { duration } from "../../core/index.js";

/** This machine as seen from itself. */
function isLoopback({ hostname }: URL): boolean {
  return (isIPv4(hostname) && hostname.startsWith("127.")) || ["[::1]", "localhost"].includes(hostname);
}

function parsed(text: string): URL | undefined {
  return URL.canParse(text) ? new URL(text) : undefined;
}

/** The value is in no message: somebody may have put a password into it. */
const serviceUrl = z
  .string()
  .max(2_000)
  .superRefine((text, { addIssue }) => {
    const url = parsed(text);
    if (!url || !/^https?:$/.test(url.protocol)) {
      addIssue("expected an address such as https://templates.example/team");
    } else if (url.username !== "" || url.password !== "") {
      addIssue("expected no user and no password: put a token into a file, and its path into token_file");
    } else if (url.search !== "" || url.hash !== "") {
      addIssue('expected an address without "?" and "#": /templates is put behind it');
    }
  })
  .transform((text) => (parsed(text)?.href ?? "").replace(/\/+$/, ""));

export const options = z
  .strictObject({
    url: serviceUrl.meta({ description: "Where the service is; /templates and /templates/ID follow it." }),
    token_file: z
      .string()
      .startsWith("/", "expected an absolute path")
      .optional()
      .meta({ description: "A file with the bearer token, mode 0600. Read for every request." }),
    plain_http: z
      .boolean()
      .default(false)
      .meta({ description: "Take http, without TLS, from another machine too." }),
    timeout: duration({ min: "10ms" })
      .default(5_000)
      .meta({ description: "So long one request may take, to the last byte." }),
    max_age: duration()
      .default(5_000)
      .meta({ description: "What the service has said, or that it did not answer, counts for so long." }),
    refresh: duration({ min: "1s" })
      .default(60_000)
      .meta({ description: "How often everything is asked for again, so that the cache is up to date." }),
  })
  .refine(({ url, plain_http }) => plain_http || url.startsWith("https:") || isLoopback(new URL(url)), {
    path: ["url"],
    error:
      "expected https for another machine: templates say what is run here, and http lets everybody on the way " +
      "change them and read the token. If that is meant, set plain_http: true",
  });
