// What each program for Node does alike: see tally.py.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

const GRACE = 300;
const PATIENCE = 300_000;

export const asked = JSON.parse(process.argv[2]);

export class Tally {
  constructor(jobs) {
    this.jobs = jobs;
    this.runs = new Uint32Array(jobs);
    this.ran = 0;
    this.done = new Promise((resolve) => (this.finish = resolve));
  }

  count(number) {
    if (this.ran === 0) this.first = performance.now();
    this.runs[number] += 1;
    this.ran += 1;
    if (this.ran === this.jobs) {
      this.last = performance.now();
      this.finish();
    }
  }

  async wait() {
    await Promise.race([this.done, sleep(PATIENCE, undefined, { ref: false })]);
    await sleep(GRACE);
  }

  told(enqueue, name) {
    const manifest = new URL(`./node_modules/${name}/package.json`, import.meta.url);
    const answer = {
      version: JSON.parse(readFileSync(manifest)).version,
      enqueue: enqueue / 1000,
      drain: ((this.last ?? 0) - this.first) / 1000,
      ran: this.runs.reduce((sum, runs) => sum + runs, 0),
      distinct: this.runs.reduce((sum, runs) => sum + (runs ? 1 : 0), 0),
      most: this.runs.reduce((most, runs) => Math.max(most, runs), 0),
    };
    process.stdout.write(JSON.stringify(answer) + "\n", () => process.exit(0));
  }
}
