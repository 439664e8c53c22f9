// Prints each record once, across cuts: node client.mjs ws://127.0.0.1:8080/ws TOKEN notifications,news
// Node before 22 needs `npm install ws`; in a page drop the next line, and process.argv.
const WebSocket = globalThis.WebSocket ?? (await import("ws")).WebSocket;

const cursors = new Map(); // topic -> its epoch, and of each partition the next offset wanted (docs/protocol.md, rule 5)
let pause = 1000; // ms until the next attempt

function keep(frame) {
  const known = cursors.get(frame.topic) ?? { epoch: null, next: {} };
  const epoch = frame.epoch ?? known.epoch;
  const next = { ...frame.position };
  if (frame.type === "MESSAGE") next[frame.partition] = frame.offset + 1;
  const anew = epoch !== known.epoch || frame.gaps?.some((gap) => gap.reason === "recreated");
  if (!anew) for (const p in known.next) next[p] = Math.max(known.next[p], next[p] ?? 0);
  cursors.set(frame.topic, { epoch, next });
}

function since() {
  const entry = ([topic, { epoch, next }]) => `${topic}~${epoch}@` + Object.entries(next).map((at) => at.join(":"));
  return [...cursors].filter(([, { next }]) => Object.keys(next).length).map(entry).join(";") || "latest";
}

function follow(url, token, names) {
  const query = new URLSearchParams({ topics: names, since: since() });
  const socket = new WebSocket(`${url}?${query}`, ["bearer", token]); // where tokens expire, get a new one here
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    for (const part of frame.subscriptions ?? (frame.topic ? [frame] : [])) keep(part);
    if (frame.type === "CONNECTED") pause = 1000;
    if (frame.type === "MESSAGE") console.log(frame.topic, frame.partition, frame.offset, JSON.stringify(frame.data));
    for (const gap of frame.gaps ?? []) console.error("missing:", frame.topic, gap);
  };
  let isOver = false;
  socket.onclose = socket.onerror = ({ code = 1006, reason }) => {
    if (isOver) return; // some tell of a failed attempt by one of the two, some by both
    isOver = true;
    if ([1000, 1002, 1007, 1009].includes(code) || (code >= 4400 && code < 4500)) return console.error(code, reason);
    setTimeout(follow, pause * (0.5 + Math.random() / 2), url, token, names);
    pause = Math.min(2 * pause, 30_000);
  };
}

follow(...process.argv.slice(2));
