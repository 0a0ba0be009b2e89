import { createRequire } from "node:module";
import { constants, endianness } from "node:os";

/** Sends a text. `later`: the receiver's queue is full; `lost`: it cannot be sent. */
export type DatagramSender = (text: string) => "sent" | "later" | "lost";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0x80000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const LONGEST_ADDRESS = 108;

interface Koffi {
  load(path: null): { func(prototype: string): (...args: unknown[]) => number };
  errno(): number;
}

/** Opens a datagram socket to an address by libc, since Node has no unix datagram sockets. Throws without koffi. */
export function openDatagramSender(address: string): DatagramSender {
  const to = socketAddress(address);
  const koffi = createRequire(import.meta.url)("koffi") as Koffi;
  const libc = koffi.load(null);
  const socket = libc.func("int socket(int domain, int type, int protocol)");
  const sendto = libc.func(
    "long sendto(int fd, void *data, size_t size, int flags, void *to, uint32_t to_size)",
  );
  const fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new Error("cannot open a socket");
  return (text) => {
    const data = Buffer.from(text);
    if (sendto(fd, data, data.length, MSG_DONTWAIT | MSG_NOSIGNAL, to, to.length) >= 0) return "sent";
    return koffi.errno() === constants.errno.EAGAIN ? "later" : "lost";
  };
}

/** Builds a `struct sockaddr_un` of unix(7): a path, or an abstract name after `@`. */
function socketAddress(address: string): Buffer {
  const isAbstract = address.startsWith("@");
  if (!isAbstract && !address.startsWith("/")) throw new Error("it is neither a path nor an abstract name");
  const name = Buffer.from(isAbstract ? `\0${address.slice(1)}` : `${address}\0`);
  if (name.length > LONGEST_ADDRESS) throw new Error(`it is longer than ${LONGEST_ADDRESS} bytes`);
  const family = Buffer.alloc(2);
  if (endianness() === "LE") family.writeUInt16LE(AF_UNIX);
  else family.writeUInt16BE(AF_UNIX);
  return Buffer.concat([family, name]);
}
