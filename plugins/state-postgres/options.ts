import { z } from "zod";
import { parseUrl } from "./server-url.js";

const absolute = z.string().startsWith("/", "expected an absolute path");

export const optionsSchema = z
  .strictObject({
    managed: z.boolean().default(false).meta({
      description: "Run a PostgreSQL of this daemon's own, as a service: it has to be installed.",
    }),
    program: absolute.optional().meta({
      description:
        "The file of `postgres`, where it is to be another than the one that is found. With managed.",
    }),
    bin_dir: absolute.optional().meta({ description: "Instead of program: its folder." }),
    eager: z.boolean().default(false).meta({
      description: "Start the server with the daemon, and not when it is first needed. With managed.",
    }),
    url: z.string().optional().meta({
      description:
        "A server that runs: postgres://USER@HOST:PORT/DATABASE, or with ?host=/FOLDER for a socket.",
    }),
    password_file: absolute.optional().meta({
      description: "A file with the password for url, in place of one in the URL.",
    }),
    schema: z
      .string()
      .regex(
        /^(?!pg_)[a-z_][a-z0-9_]{0,40}$/,
        "expected up to 41 of a-z 0-9 _, not beginning with a digit or pg_",
      )
      .default("openstarry")
      .meta({ description: "Where its tables are. Each daemon needs one of its own." }),
    max_deletions: z.int().min(1).max(1_000_000).default(10_000).meta({
      description: "How many deletions of each namespace are kept for watches that resume.",
    }),
  })
  .superRefine((options, context) => {
    const { managed, program, bin_dir, eager, url, password_file } = options;
    const refuse = (path: string, message: string) =>
      context.addIssue({ code: "custom", path: [path], message });
    if (managed && url !== undefined) refuse("url", 'there is "managed" beside it: keep one of the two');
    if (!managed && url === undefined)
      refuse(
        "url",
        'say which server to use: "managed": true runs one of its own, "url" names one that runs',
      );
    for (const [name, value] of Object.entries({ program, bin_dir, eager: eager || undefined })) {
      if (!managed && value !== undefined) refuse(name, 'it is for "managed": true');
    }
    if (program !== undefined && bin_dir !== undefined)
      refuse("bin_dir", 'there is "program" beside it: keep one of the two');
    if (managed && password_file !== undefined) refuse("password_file", 'it is for "url"');
    if (url === undefined) return;
    const server = parseUrl(url);
    if (typeof server === "string") refuse("url", server);
    else if (password_file !== undefined && server.connection.password !== undefined)
      refuse("password_file", "there is a password in url as well: keep one of the two");
  });

export type Options = z.output<typeof optionsSchema>;
