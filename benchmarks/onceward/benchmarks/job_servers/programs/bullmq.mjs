// BullMQ: one worker with concurrency 50; addBulk, a thousand jobs at a time.
import { Queue, Worker } from "bullmq";
import { asked, Tally } from "./tally.mjs";

const { hostname: host, port } = new URL(asked.url);
const connection = { host, port: Number(port || 6379), maxRetriesPerRequest: null };
const tally = new Tally(asked.jobs);
const queue = new Queue(asked.name, { connection });
await queue.waitUntilReady();
const began = performance.now();
for (let first = 0; first < asked.jobs; first += 1000) {
  const count = Math.min(1000, asked.jobs - first);
  await queue.addBulk(Array.from({ length: count }, (_, i) => ({ name: "body", data: { number: first + i } })));
}
const enqueue = performance.now() - began;
new Worker(asked.name, async (job) => tally.count(job.data.number), { connection, concurrency: 50 });
await tally.wait();
tally.told(enqueue, "bullmq");
