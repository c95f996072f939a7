// Pulse: as many jobs at a time as there are, locks without limit, and the shortest tick that pays.
import { Pulse } from "@pulsecron/pulse";
import { asked, Tally } from "./tally.mjs";

const tally = new Tally(asked.jobs);
const pulse = new Pulse({
  db: { address: asked.url, collection: asked.name },
  processEvery: 20, // milliseconds, as a number: it reads "20 milliseconds" as 20 seconds
  maxConcurrency: 1000,
  defaultConcurrency: 1000,
  lockLimit: 0,
  defaultLockLimit: 0,
});
pulse.define("body", async (job) => tally.count(job.attrs.data.number));
await new Promise((resolve) => pulse.once("ready", resolve));
const began = performance.now();
for (let first = 0; first < asked.jobs; first += 100) {
  const count = Math.min(100, asked.jobs - first);
  await Promise.all(Array.from({ length: count }, (_, i) => pulse.now("body", { number: first + i })));
}
const enqueue = performance.now() - began;
await pulse.start();
await tally.wait();
tally.told(enqueue, "@pulsecron/pulse");
