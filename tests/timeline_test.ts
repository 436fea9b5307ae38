import { assert, assertEquals } from "@std/assert";
import { type Bar, drawTimeline } from "../demo/timeline.ts";

function bar(worker: number, job: string | number, start: number, end: number, failed = false): Bar {
  return { worker, job, start, end, failed };
}

/** Ten jobs on four workers, in the order in which they ended. */
const TEN = [
  bar(2, 1, 31, 228),
  bar(2, 4, 229, 434),
  bar(4, 3, 34, 595),
  bar(3, 2, 32, 753, true),
  bar(3, 7, 755, 757),
  bar(2, 5, 435, 786),
  bar(1, 0, 30, 801),
  bar(3, 8, 758, 1093),
  bar(4, 6, 596, 1254),
  bar(2, 9, 788, 1318, true),
];

/** A thousand jobs of 10 ms. */
const THOUSAND = Array.from(
  { length: 1000 },
  (_, i) => bar(i % 4 + 1, i, Math.floor(i / 4) * 10, Math.floor(i / 4) * 10 + 10, i % 97 === 96),
);

/** Ids that are too long, that just fit, and that are narrower than they seem. */
const IDS = [bar(1, "x".repeat(60), 0, 500), bar(1, "chapter-1.txt", 500, 900), bar(1, "熊", 900, 1000), bar(12, 123456, 0, 1000, true)];

/** A worker that waits, and one that runs two jobs at a time. */
const GAPS = [bar(1, 0, 0, 100), bar(1, 1, 500, 501), bar(1, 2, 900, 1000), bar(2, 3, 100, 300), bar(2, 4, 200, 400)];

const PICTURES: [title: string, bars: Bar[], columns: number, picture: string][] = [
  [
    "ten jobs",
    TEN,
    30,
    `
1 |0================..........
2 |1==|4===|5=====|9xxxxxxxxxx
3 |2xxxxxxxxxxxxxx#8======....
4 |3==========|6=============.
  +---------+----------+------
  0 s       0.5        1.0
  x failed   # several jobs
`,
  ],
  [
    "ten jobs",
    TEN,
    40,
    `
worker 1 |0=================............
worker 2 |1===|4===|5======|9xxxxxxxxxxx
worker 3 |2xxxxxxxxxxxxxxx#8=======.....
worker 4 |3============|6==============.
         +----------+-----------+-------
         0 s        0.5         1.0
         x failed   # several jobs
`,
  ],
  [
    "ten jobs",
    TEN,
    80,
    `
worker 1 .|0=========================================...........................
worker 2 .|1=========|4=========|5=================|9xxxxxxxxxxxxxxxxxxxxxxxxxxx
worker 3 .|2xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx#8=================............
worker 4 .|3=============================|6==================================...
         +---------+----------+----------+----------+---------+----------+------
         0 s       0.2        0.4        0.6        0.8       1.0        1.2
         x failed   # several jobs
`,
  ],
  [
    "ten jobs",
    TEN,
    200,
    `
worker 1 ....|0===============================================================================================================..........................................................................
worker 2 ....|1===========================|4============================|5=================================================|9xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
worker 3 ....|2xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx#8================================================................................
worker 4 ....|3================================================================================|6==============================================================================================.........
         +-------------+-------------+--------------+-------------+--------------+-------------+--------------+-------------+--------------+-------------+--------------+-------------+--------------+--
         0 s           0.1           0.2            0.3           0.4            0.5           0.6            0.7           0.8            0.9           1.0            1.1           1.2            1.3
         x failed   # several jobs
`,
  ],
  [
    "a thousand jobs",
    THOUSAND,
    40,
    `
worker 1 ##x############x###########x###
worker 2 #####x###########x############x
worker 3 ########x###########x##########
worker 4 ###########x###########x#######
         +-----------+-----------+------
         0 s         1           2
         x failed   # several jobs
`,
  ],
  [
    "a thousand jobs",
    THOUSAND,
    80,
    `
worker 1 ######x###########################x##########################x#########
worker 2 #############x###########################x##########################x##
worker 3 ####################x##########################x#######################
worker 4 ###########################x##########################x################
         +-------------+-------------+-------------+-------------+--------------
         0 s           0.5           1.0           1.5           2.0
         x failed   # several jobs
`,
  ],
  [
    "long ids",
    IDS,
    40,
    `
 worker 1 |==============|===========|==
worker 12 |123456xxxxxxxxxxxxxxxxxxxxxxx
          +--------------+--------------
          0 s            0.5
          x failed
`,
  ],
  [
    "long ids",
    IDS,
    80,
    `
 worker 1 |==================================|chapter-1.txt==============|======
worker 12 |123456xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx
          +-------------+-------------+-------------+-------------+-------------
          0 s           0.2           0.4           0.6           0.8
          x failed
`,
  ],
  [
    "gaps and jobs at the same time",
    GAPS,
    40,
    `
worker 1 |0==...........|...........|2==
worker 2 ...|3=####===..................
         +--------------+---------------
         0 s            0.5
         # several jobs
`,
  ],
];

for (const [title, bars, columns, picture] of PICTURES) {
  Deno.test(`drawTimeline() draws ${title} on ${columns} columns`, () => {
    assertEquals(drawTimeline(bars, { columns, color: false }), picture.split("\n").slice(1, -1));
  });
}

Deno.test("drawTimeline() draws rows and axis as wide as it may, and nothing wider", () => {
  for (let columns = 20; columns <= 200; columns++) {
    for (const bars of [TEN, THOUSAND]) {
      const lines = drawTimeline(bars, { columns, color: false });
      assertEquals(lines.slice(0, 5).map((line) => line.length), Array(5).fill(columns));
      for (const line of lines) assert(line.length <= columns, line);
    }
  }
});

Deno.test("drawTimeline() is left out where there is no room or nothing to show", () => {
  for (const columns of [0, 1, 11]) assertEquals(drawTimeline(TEN, { columns, color: false }), []);
  assertEquals(drawTimeline(TEN, { columns: 12, color: false }).length, 8);
  assertEquals(drawTimeline([], { columns: 80, color: false }), []);
  assertEquals(drawTimeline([bar(1, 0, 0, 0)], { columns: 80, color: false }), []);
});

Deno.test("drawTimeline() draws failed jobs in red on a terminal that has colours, and all else as without", () => {
  const [plain, colored] = [false, true].map((color) => drawTimeline(TEN, { columns: 40, color }));
  assertEquals(colored!.map((line) => line.replace("\x1b[31m", "").replace("\x1b[39m", "")), plain);
  assertEquals(colored![1], "worker 2 |1===|4===|5======\x1b[31m|9xxxxxxxxxxx\x1b[39m");
  assertEquals(colored![0], plain![0]);
});

const SCALES: [total: number, axis: string][] = [
  [1, "0 ms"],
  [7, "0 ms          2              4             6"],
  [90, "0 ms       20         40          60         80"],
  [1999, "0 s         0.5          1.0          1.5"],
  [12_345, "0 s     2       4       6        8       10      12"],
  [3_600_000, "0 s           1000          2000          3000"],
];

for (const [total, axis] of SCALES) {
  Deno.test(`drawTimeline() has a scale of round times below ${total} ms`, () => {
    const [, , labels] = drawTimeline([bar(1, 0, 0, total)], { columns: 60, color: false });
    assertEquals(labels?.trim(), axis);
  });
}
