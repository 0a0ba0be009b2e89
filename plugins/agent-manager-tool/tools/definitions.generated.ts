// Written by `npm run generate` from the tools of the operations; a test holds it to them.
export const GENERATED = [
  {
    "name": "agent:templates",
    "title": "List agent templates",
    "effect": "read",
    "idempotent": true,
    "operation": "templates.list",
    "description": "Lists the templates that agents can be started from: id, what such an agent does, and which params it takes (required ones and their types). Call this before agent:start unless you know the template.",
    "parameters": {
      "type": "object",
      "properties": {
        "template_id": {
          "description": "Only this template. Leave out to list all.",
          "type": "string"
        },
        "verbose": {
          "type": "boolean",
          "description": "True: complete records instead of summaries, up to 64 KiB. Default false: at most 4 KiB."
        },
        "max_bytes": {
          "type": "integer",
          "minimum": 1024,
          "maximum": 1048576,
          "description": "How large the answer may be, in bytes. Default 4096. More than that is shortened, and says so."
        }
      },
      "required": [],
      "additionalProperties": false
    }
  },
  {
    "name": "agent:start",
    "title": "Start an agent",
    "effect": "write",
    "idempotent": true,
    "operation": "agents.create",
    "description": "Starts a new agent as an independent process that works on its own. Returns at once, with the agent's id and state; use agent:wait to wait for its end and agent:result for what it produced. Choose a clear agent_id, because one id can be started only once, so that repeating a call can never give two agents. To give the same template two jobs, start two agents with different ids.",
    "parameters": {
      "type": "object",
      "properties": {
        "template_id": {
          "type": "string",
          "description": "Which kind of agent; one of the ids of agent:templates."
        },
        "agent_id": {
          "description": "The new agent's id: 1 to 63 letters, digits, '.', '_' or '-', such as data_worker_1. Left out: the daemon makes one up.",
          "type": "string",
          "pattern": "^[A-Za-z0-9_][A-Za-z0-9._-]{0,62}$"
        },
        "params": {
          "description": "The job: values for the template's params, by name. agent:templates tells which it takes.",
          "type": "object",
          "additionalProperties": true
        },
        "labels": {
          "description": "Notes to find the agent by later, such as {\"job\": \"sales-report\"}.",
          "type": "object",
          "additionalProperties": {
            "type": "string"
          }
        },
        "wait_until": {
          "description": "When to return: once the process exists (started, the default) or once the agent is ready.",
          "type": "string",
          "enum": [
            "started",
            "ready"
          ]
        }
      },
      "required": [
        "template_id"
      ],
      "additionalProperties": false
    }
  },
  {
    "name": "agent:wait",
    "title": "Wait for agents",
    "effect": "read",
    "idempotent": true,
    "operation": "agents.get",
    "description": "Waits until all the given agents have ended (or are ready), and returns the state of each. When the timeout comes first, it returns what is the case by then, with done: false; that is no error: call it again to go on waiting.",
    "parameters": {
      "type": "object",
      "properties": {
        "agent_ids": {
          "minItems": 1,
          "maxItems": 50,
          "type": "array",
          "items": {
            "type": "string"
          },
          "description": "The ids of the agents to wait for, such as [\"worker_1\", \"worker_2\"]."
        },
        "until": {
          "description": "ended (the default): its work is over, whatever came of it. ready: it is up and can be used.",
          "type": "string",
          "enum": [
            "ended",
            "ready"
          ]
        },
        "timeout": {
          "description": "The longest time to wait, with its unit, such as \"30s\" or \"10m\". Default \"45s\", at most \"1h\".",
          "type": "string",
          "pattern": "^([0-9]+(\\.[0-9]{1,3})?(ms|s|m|h|d))+$"
        },
        "verbose": {
          "type": "boolean",
          "description": "True: complete records instead of summaries, up to 64 KiB. Default false: at most 4 KiB."
        },
        "max_bytes": {
          "type": "integer",
          "minimum": 1024,
          "maximum": 1048576,
          "description": "How large the answer may be, in bytes. Default 4096. More than that is shortened, and says so."
        }
      },
      "required": [
        "agent_ids"
      ],
      "additionalProperties": false
    }
  },
  {
    "name": "agent:result",
    "title": "Get an agent's result",
    "effect": "read",
    "idempotent": true,
    "operation": "agents.result",
    "description": "Returns what an agent left as its result when it ended. While it still runs there is none: agent:wait first.",
    "parameters": {
      "type": "object",
      "properties": {
        "agent_id": {
          "type": "string",
          "description": "The id of the agent, as agent:start or agent:list gave it."
        },
        "verbose": {
          "type": "boolean",
          "description": "True: complete records instead of summaries, up to 64 KiB. Default false: at most 4 KiB."
        },
        "max_bytes": {
          "type": "integer",
          "minimum": 1024,
          "maximum": 1048576,
          "description": "How large the answer may be, in bytes. Default 4096. More than that is shortened, and says so."
        }
      },
      "required": [
        "agent_id"
      ],
      "additionalProperties": false
    }
  },
  {
    "name": "agent:status",
    "title": "Show an agent",
    "effect": "read",
    "idempotent": true,
    "operation": "agents.get",
    "description": "Shows one agent: its state (pending, starting, running, stopping, backoff, stopped, exited, failed) and the reason, its health, restarts, its own last words about its progress, and how its last run ended.",
    "parameters": {
      "type": "object",
      "properties": {
        "agent_id": {
          "type": "string",
          "description": "The id of the agent, as agent:start or agent:list gave it."
        },
        "verbose": {
          "type": "boolean",
          "description": "True: complete records instead of summaries, up to 64 KiB. Default false: at most 4 KiB."
        },
        "max_bytes": {
          "type": "integer",
          "minimum": 1024,
          "maximum": 1048576,
          "description": "How large the answer may be, in bytes. Default 4096. More than that is shortened, and says so."
        }
      },
      "required": [
        "agent_id"
      ],
      "additionalProperties": false
    }
  },
  {
    "name": "agent:list",
    "title": "List agents",
    "effect": "read",
    "idempotent": true,
    "operation": "agents.list",
    "description": "Lists the agents that you may see: yourself and those that you started. Filters narrow it down.",
    "parameters": {
      "type": "object",
      "properties": {
        "state": {
          "description": "Only agents in this state.",
          "type": "string",
          "enum": [
            "pending",
            "starting",
            "running",
            "stopping",
            "backoff",
            "stopped",
            "exited",
            "failed"
          ]
        },
        "template_id": {
          "description": "Only agents of this template.",
          "type": "string"
        },
        "label": {
          "description": "Only agents with this label, as \"name=value\".",
          "type": "string"
        },
        "limit": {
          "description": "How many at most. Default 50.",
          "type": "integer",
          "minimum": 1,
          "maximum": 1000
        },
        "cursor": {
          "description": "The next_cursor of the last answer, for the agents after those.",
          "type": "string"
        },
        "verbose": {
          "type": "boolean",
          "description": "True: complete records instead of summaries, up to 64 KiB. Default false: at most 4 KiB."
        },
        "max_bytes": {
          "type": "integer",
          "minimum": 1024,
          "maximum": 1048576,
          "description": "How large the answer may be, in bytes. Default 4096. More than that is shortened, and says so."
        }
      },
      "required": [],
      "additionalProperties": false
    }
  },
  {
    "name": "agent:logs",
    "title": "Read an agent's output",
    "effect": "read",
    "idempotent": true,
    "operation": "agents.logs",
    "description": "Returns the last lines that an agent printed, of its newest run; what went to standard error begins with [stderr]. The place to look when an agent failed or hangs.",
    "parameters": {
      "type": "object",
      "properties": {
        "agent_id": {
          "type": "string",
          "description": "The id of the agent, as agent:start or agent:list gave it."
        },
        "tail": {
          "description": "How many lines, counted from the end. Default 40.",
          "type": "integer",
          "minimum": 1,
          "maximum": 10000
        },
        "stream": {
          "description": "Only this stream. Left out: both.",
          "type": "string",
          "enum": [
            "stdout",
            "stderr"
          ]
        },
        "previous": {
          "description": "True: of the run before the newest one. Default false.",
          "type": "boolean"
        },
        "since": {
          "description": "Only what was printed since then, over restarts: \"10m\" for ten minutes ago, or RFC 3339.",
          "type": "string"
        },
        "until": {
          "description": "Only what was printed until then; written like since.",
          "type": "string"
        },
        "verbose": {
          "type": "boolean",
          "description": "True: complete records instead of summaries, up to 64 KiB. Default false: at most 4 KiB."
        },
        "max_bytes": {
          "type": "integer",
          "minimum": 1024,
          "maximum": 1048576,
          "description": "How large the answer may be, in bytes. Default 4096. More than that is shortened, and says so."
        }
      },
      "required": [
        "agent_id"
      ],
      "additionalProperties": false
    }
  },
  {
    "name": "agent:why",
    "title": "Explain an agent's state",
    "effect": "read",
    "idempotent": true,
    "operation": "agents.why",
    "description": "Explains why an agent is in the state that it is in: what happened to it, who asked for it, how its last run ended, and what happens next.",
    "parameters": {
      "type": "object",
      "properties": {
        "agent_id": {
          "type": "string",
          "description": "The id of the agent, as agent:start or agent:list gave it."
        },
        "verbose": {
          "type": "boolean",
          "description": "True: complete records instead of summaries, up to 64 KiB. Default false: at most 4 KiB."
        },
        "max_bytes": {
          "type": "integer",
          "minimum": 1024,
          "maximum": 1048576,
          "description": "How large the answer may be, in bytes. Default 4096. More than that is shortened, and says so."
        }
      },
      "required": [
        "agent_id"
      ],
      "additionalProperties": false
    }
  },
  {
    "name": "agent:send",
    "title": "Send an agent a message",
    "effect": "write",
    "idempotent": true,
    "operation": "bus.publish",
    "description": "Puts a message into an agent's inbox, where the daemon has a message bus: an agent that you started, the one that started you, or another one of its. With wait_for_reply: true it returns what comes back; when nothing comes in time, the message is sent all the same, so do not send it again.",
    "parameters": {
      "type": "object",
      "properties": {
        "agent_id": {
          "type": "string",
          "description": "The id of the agent, as agent:start or agent:list gave it."
        },
        "message": {
          "type": "string",
          "description": "What to tell it. The text of a JSON object or list arrives as that."
        },
        "wait_for_reply": {
          "description": "True: wait for its answer. Default false.",
          "type": "boolean"
        },
        "timeout": {
          "description": "How long to wait for the answer, with its unit, such as \"30s\". Default \"45s\", at most \"10m\".",
          "type": "string",
          "pattern": "^([0-9]+(\\.[0-9]{1,3})?(ms|s|m|h|d))+$"
        },
        "verbose": {
          "type": "boolean",
          "description": "True: complete records instead of summaries, up to 64 KiB. Default false: at most 4 KiB."
        },
        "max_bytes": {
          "type": "integer",
          "minimum": 1024,
          "maximum": 1048576,
          "description": "How large the answer may be, in bytes. Default 4096. More than that is shortened, and says so."
        }
      },
      "required": [
        "agent_id",
        "message"
      ],
      "additionalProperties": false
    }
  },
  {
    "name": "agent:restart",
    "title": "Restart an agent",
    "effect": "destructive",
    "idempotent": false,
    "operation": "agents.restart",
    "description": "Ends an agent's process if one runs, and starts it again with the same id and params. Also starts again an agent that has stopped, exited or failed. Its work in progress is lost.",
    "parameters": {
      "type": "object",
      "properties": {
        "agent_id": {
          "type": "string",
          "description": "The id of the agent, as agent:start or agent:list gave it."
        }
      },
      "required": [
        "agent_id"
      ],
      "additionalProperties": false
    }
  },
  {
    "name": "agent:stop",
    "title": "Stop an agent",
    "effect": "destructive",
    "idempotent": true,
    "operation": "agents.stop",
    "description": "Ends an agent and every process that it started: first politely, by force after its grace period. With remove: true its record goes too, its result with it, and its id can be used again. Ending an agent that has ended already does no harm.",
    "parameters": {
      "type": "object",
      "properties": {
        "agent_id": {
          "type": "string",
          "description": "The id of the agent, as agent:start or agent:list gave it."
        },
        "remove": {
          "description": "True: forget the agent too. Read its result first. Default false.",
          "type": "boolean"
        },
        "grace": {
          "description": "How long it may take to end by itself, such as \"10s\". Default: what its template says.",
          "type": "string",
          "pattern": "^([0-9]+(\\.[0-9]{1,3})?(ms|s|m|h|d))+$"
        }
      },
      "required": [
        "agent_id"
      ],
      "additionalProperties": false
    }
  }
] as const;
