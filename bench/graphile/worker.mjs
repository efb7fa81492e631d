// Works jobs of one upsert each: a line with a number on standard input queues so many, and is answered with the
// milliseconds that it took to work them off. Arguments: the database's URL, and "plain" or "batched".
import {createInterface} from "node:readline";
import {Logger, makeWorkerUtils, run} from "graphile-worker";

const [url, how] = process.argv.slice(2);
const UPSERT = "INSERT INTO tallies (n, times) VALUES ($1, 1) ON CONFLICT (n) DO UPDATE SET times = tallies.times + 1";
// As its page on performance has it, for many small jobs.
const batched = {localQueue: {size: 200}, completeJobBatchDelay: 0, failJobBatchDelay: 0};

const logger = new Logger(() => () => {});
const utils = await makeWorkerUtils({connectionString: url, logger});
await utils.migrate();
console.log("ready");

for await (const line of createInterface({input: process.stdin})) {
  const number = Number(line);
  await utils.addJobs(Array.from({length: number}, (_, n) => ({identifier: "upsert", payload: {n}})));
  let left = number, over;
  const done = new Promise((resolve) => {
    over = resolve;
  });
  const began = performance.now();
  const runner = await run({
    logger,
    connectionString: url,
    concurrency: 10,
    maxPoolSize: 12,
    noHandleSignals: true,
    taskList: {
      upsert: async ({n}, helpers) => {
        await helpers.query(UPSERT, [n]);
        left -= 1;
        if (!left) over();
      },
    },
    preset: how === "batched" ? {worker: batched} : {},
  });
  await done;
  const took = performance.now() - began;
  await runner.stop();
  console.log(took);
}
process.exit(0);
