// aedes by itself, with its memory persistence, for comparison. Prints its port.
import { createServer } from "node:net";
import { Aedes } from "aedes";

const aedes = await Aedes.createBroker();
const server = createServer({ noDelay: true }, aedes.handle);
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
