// The example system of this repository: `npm start`.
import { defineConfig } from "openstarry-daemon";

export default defineConfig({
  agents: [
    {
      agent_id: "master",
      template_id: "MasterAgent_v1",
      params: {
        goal: "Analyse data/weather.csv by location and data/airports.csv by state, and report what stands out.",
      },
    },
  ],
  templates: ["./examples/templates"],
});
