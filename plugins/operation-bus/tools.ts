import { z } from "zod";
import type { OperationTool } from "../../core/index.js";

export const sendTool: OperationTool = {
  name: "agent:send",
  title: "Send an agent a message",
  effect: "write",
  sizable: true,
  description:
    "Puts a message into an agent's inbox, where the daemon has a message bus: an agent that you started, the one " +
    "that started you, or another one of its. With wait_for_reply: true it returns what comes back; when nothing " +
    "comes in time, the message is sent all the same, so do not send it again.",
  input: z.strictObject({
    agent_id: z.string().meta({ description: "The id of the agent, as agent:start or agent:list gave it." }),
    message: z.string().meta({
      description: "What to tell it. The text of a JSON object or list arrives as that.",
    }),
    wait_for_reply: z.boolean().optional().meta({
      description: "True: wait for its answer. Default false.",
    }),
    timeout: z
      .string()
      .regex(/^([0-9]+(\.[0-9]{1,3})?(ms|s|m|h|d))+$/)
      .optional()
      .meta({
        description:
          'How long to wait for the answer, with its unit, such as "30s". Default "45s", at most "10m".',
      }),
  }),
};
