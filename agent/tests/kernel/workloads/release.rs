//! Rust, optimised, without frame pointers and debug information: a closure behind a pointer, a generic, a sort that
//! calls back, on a thread of its own.

use std::hint::black_box;
use std::io::{BufRead, Write};
use std::time::Duration;

/// CPU time of this thread, as the scheduler accounts for it. It does so at every look for somebody else to run. A reading
/// takes some 20 µs: what is timed has to be much longer.
fn cpu() -> Duration {
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap();
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
}

#[inline(never)]
fn boxed_part(parts: &[Box<dyn Fn(u64) -> u64>]) -> u64 {
    parts.iter().map(|part| part(800_000)).fold(0, |a, b| a ^ b)
}

trait Step {
    fn step(&self, x: u64) -> u64;
}

struct Multiply(u64);

impl Step for Multiply {
    fn step(&self, x: u64) -> u64 {
        x.wrapping_mul(self.0)
    }
}

#[inline(never)]
fn generic_part<S: Step>(step: &S, rounds: u64) -> u64 {
    (0..rounds).fold(1, |x, i| black_box(step.step(x ^ i)))
}

#[inline(never)]
fn sorting_part(words: &mut [u64]) -> u64 {
    let mut x = 88_172_645_463_325_252_u64;
    for word in words.iter_mut() {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        *word = x;
    }
    words.sort_by(|a, b| (a % 1_000).cmp(&(b % 1_000)));
    words[0]
}

fn timed(into: &mut Duration, part: impl FnOnce() -> u64) {
    let begin = cpu();
    black_box(part());
    *into += cpu() - begin;
}

fn main() {
    let millis = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(1_000);
    say("ready");
    let worker = std::thread::spawn(move || {
        let factor = black_box(6_364_136_223_846_793_005_u64);
        let closure = move |rounds| (0..rounds).fold(7, |x: u64, i| black_box(x.wrapping_mul(factor) ^ i));
        let parts: Vec<Box<dyn Fn(u64) -> u64>> = vec![Box::new(closure), Box::new(closure)];
        let mut words = vec![0; 10_000];
        let mut spent = [Duration::ZERO; 3];
        while spent.iter().sum::<Duration>() < Duration::from_millis(millis) {
            timed(&mut spent[0], || boxed_part(black_box(&parts)) ^ boxed_part(black_box(&parts)));
            timed(&mut spent[1], || generic_part(&Multiply(black_box(3)), 6_000_000));
            timed(&mut spent[2], || (0..20).map(|_| sorting_part(black_box(&mut words))).fold(0, |a, b| a ^ b));
        }
        let [boxed, generic, sorting] = spent.map(|part| part.as_nanos());
        format!("{{\"boxed_part\":{boxed},\"generic_part\":{generic},\"sorting_part\":{sorting}}}")
    });
    say(&worker.join().unwrap());
}
