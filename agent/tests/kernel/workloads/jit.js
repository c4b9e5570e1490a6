// JavaScript, interpreted at first and then compiled, with a perf map: three parts, one of them inside of the C++ of Node.
'use strict';
const { readSync, writeSync } = require('fs');
const { createHash } = require('crypto');

const cpu = () => { const { user, system } = process.cpuUsage(); return user + system; };
const say = (text) => { writeSync(1, text + '\n'); readSync(0, Buffer.alloc(64)); };

function numbersPart(rounds) {
  let x = 1;
  for (let i = 0; i < rounds; i++) x = (Math.imul(x, 1664525) + 1013904223) ^ i;
  return x;
}

function inner(list) {
  let sum = 0;
  for (const value of list) sum += value.weight;
  return sum;
}

function objectsPart(rounds) {
  const list = Array.from({ length: 200 }, (_, i) => ({ weight: i }));
  let sum = 0;
  for (let i = 0; i < rounds; i++) sum += inner(list);
  return sum;
}

const block = Buffer.alloc(1 << 20, 'x');
function nativePart(rounds) {
  let last = 0;
  for (let i = 0; i < rounds; i++) last ^= createHash('md5').update(block).digest()[0];
  return last;
}

const parts = { numbersPart: () => numbersPart(4e6), objectsPart: () => objectsPart(3e4), nativePart: () => nativePart(4) };
const spent = { numbersPart: 0, objectsPart: 0, nativePart: 0 };
const round = () => {
  let total = 0;
  for (const [name, part] of Object.entries(parts)) {
    const begin = cpu();
    part();
    const took = cpu() - begin;
    spent[name] += took * 1000;
    total += took / 1000;
  }
  return total;
};
const length = Number(process.argv[2] || 1000);
// The compilers are done before it begins.
let warm = 0;
while (warm < 500) warm += round();
for (const name of Object.keys(spent)) spent[name] = 0;
say('ready');
let all = 0;
while (all < length) all += round();
say(JSON.stringify(spent));
