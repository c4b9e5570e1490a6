//! A planted line must come back, and what cannot be known must stay unknown.

use proptest::prelude::*;

use super::*;

/// Sums over flushes of (bytes, µs).
fn sums(flushes: impl IntoIterator<Item = (u64, u64)>) -> FlushSums {
    let mut sums = FlushSums::default();
    for (bytes, us) in flushes {
        sums.flushes += 1;
        sums.bytes += bytes;
        sums.bytes_squared = sums.bytes_squared.wrapping_add(bytes * bytes);
        sums.duration_ns += us * 1_000;
        sums.bytes_us = sums.bytes_us.wrapping_add(bytes * us);
        sums.us_squared = sums.us_squared.wrapping_add(us * us);
    }
    sums
}

/// A small generator of numbers in `0..below`.
struct Lots(u64);

impl Lots {
    fn below(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below.max(1)
    }
}

/// A span of `n` flushes of about `size` bytes at a cost of `a_us + b_us_per_kib`, both with noise of `noise_us`.
fn span(lots: &mut Lots, n: u64, size: (u64, u64), a_us: u64, b_us_per_kib: u64, noise_us: u64) -> FlushSums {
    sums((0..n).map(|_| {
        let bytes = size.0 + lots.below(size.1);
        (bytes, a_us + b_us_per_kib * bytes / 1_024 + lots.below(noise_us + 1))
    }))
}

#[test]
fn a_planted_line_comes_back_within_its_errors() {
    let (mut tracker, mut lots) = (FlushCostTracker::default(), Lots(1));
    for _ in 0..60 {
        tracker.observe(&span(&mut lots, 5, (20 << 10, 60 << 10), 3_000, 15, 400));
    }
    let cost = tracker.value().unwrap();
    let line = cost.line.unwrap();
    assert!((line.fixed_ms - 3.2).abs() < 4.0 * line.fixed_error_ms + 0.01, "{cost:?}");
    assert!((line.per_kib_us - 15.0).abs() < 4.0 * line.per_kib_error_us + 0.1, "{cost:?}");
    assert!(line.fixed_error_ms < 0.1 && line.per_kib_error_us < 1.5, "{cost:?}");
    assert!((cost.at_ms(50.0 * 1_024.0) - 3.95).abs() < 0.1, "{cost:?}");
}

#[test]
fn microseconds_that_are_rounded_in_the_products_do_not_bend_the_line() {
    let (mut tracker, mut lots) = (FlushCostTracker::default(), Lots(3));
    for _ in 0..100 {
        let mut sums = FlushSums::default();
        for _ in 0..5 {
            let (bytes, ns) = (40_000 + lots.below(2_000), 50_000 + lots.below(1_000));
            let us = (ns + 500) / 1_000;
            sums.flushes += 1;
            sums.bytes += bytes;
            sums.bytes_squared += bytes * bytes;
            sums.duration_ns += ns;
            sums.bytes_us += bytes * us;
            sums.us_squared += us * us;
        }
        tracker.observe(&sums);
    }
    let cost = tracker.value().unwrap();
    assert_eq!(cost.line, None, "40 µs too many or too few, at sizes that hardly differ: {cost:?}");
}

#[test]
fn batches_of_one_size_have_a_mean_cost_and_no_line() {
    let (mut tracker, mut lots) = (FlushCostTracker::default(), Lots(1));
    for _ in 0..100 {
        tracker.observe(&span(&mut lots, 5, (64 << 10, 1), 9_000, 10, 500));
    }
    let cost = tracker.value().unwrap();
    assert_eq!(cost.line, None);
    assert!((cost.mean_ms - 9.89).abs() < 0.1, "{cost:?}");
    assert!((cost.mean_bytes - 65_536.0).abs() < 1.0);
}

#[test]
fn sizes_that_barely_differ_under_noise_have_no_line() {
    let (mut tracker, mut lots) = (FlushCostTracker::default(), Lots(1));
    for _ in 0..100 {
        tracker.observe(&span(&mut lots, 5, (64 << 10, 3 << 10), 2_000, 10, 4_000));
    }
    let cost = tracker.value().unwrap();
    assert_eq!(cost.line, None, "{cost:?}");
    assert!((cost.at_ms(10.0) - cost.mean_ms).abs() < 1e-9);
}

#[test]
fn too_few_flushes_say_nothing() {
    let mut tracker = FlushCostTracker::default();
    assert_eq!(tracker.value(), None);
    tracker.observe(&sums([(100, 1_000); 3]));
    assert_eq!(tracker.value(), None);
    tracker.observe(&FlushSums::default());
    tracker.observe(&sums([(100, 1_000)]));
    assert!(tracker.value().is_some());
}

#[test]
fn neither_part_is_ever_negative() {
    let mut falling = FlushCostTracker::default();
    let mut through_nought = FlushCostTracker::default();
    for i in 1..=20_u64 {
        falling.observe(&sums((1..=5).map(|k| (1_024 * k, 5_000 - 100 * k))));
        through_nought.observe(&sums((1..=5).map(|k| (10_240 * (k + i % 3), 1_000 * (k + i % 3) - 500))));
    }
    let line = falling.value().unwrap().line.unwrap();
    assert!(line.per_kib_us >= 0.0 && (line.fixed_ms - 4.7).abs() < 0.05, "{line:?}");
    let line = through_nought.value().unwrap().line.unwrap();
    assert!(line.fixed_ms >= 0.0 && line.fixed_ms < 0.001 && line.per_kib_us > 50.0, "{line:?}");
}

#[test]
fn a_changed_sink_is_followed_from_the_second_span_on() {
    let (mut tracker, mut lots) = (FlushCostTracker::default(), Lots(1));
    for _ in 0..100 {
        assert_eq!(tracker.observe(&span(&mut lots, 5, (20 << 10, 60 << 10), 1_000, 10, 100)), None);
    }
    for (i, (a_us, a_ms)) in [(10_000, 10.0), (3_000, 3.0)].into_iter().enumerate() {
        let seen: Vec<bool> = (0..5)
            .map(|_| tracker.observe(&span(&mut lots, 5, (20 << 10, 60 << 10), a_us, 10, 100)).is_some())
            .collect();
        assert_eq!(seen, [false, true, false, false, false], "step {i}");
        let line = tracker.value().unwrap().line.unwrap();
        assert!((line.fixed_ms - a_ms - 0.05).abs() < 0.15, "step {i}: {line:?}");
    }
}

#[test]
fn the_end_of_an_erratic_spell_is_seen_in_two_spans() {
    for seed in 0..20 {
        let (mut tracker, mut lots) = (FlushCostTracker::default(), Lots(seed));
        let quiet = |tracker: &mut FlushCostTracker, lots: &mut Lots, spans| {
            (0..spans).find(|_| tracker.observe(&span(lots, 40, (8 << 10, 8 << 10), 400, 2, 100)).is_some())
        };
        assert_eq!(quiet(&mut tracker, &mut lots, 50), None, "seed {seed}: no step at steady load");
        // A second in which every fourth takes 7 ms.
        for _ in 0..10 {
            let late = |i| if i % 4 == 0 { 7_000 } else { 450 };
            tracker.observe(&sums((0..40).map(|i| ((8 << 10) + lots.below(8 << 10), late(i)))));
        }
        assert!(tracker.value().unwrap().mean_ms > 1.8, "seed {seed}: the spell is followed");
        assert_eq!(quiet(&mut tracker, &mut lots, 50), Some(1), "seed {seed}: its end is seen");
        let mean = tracker.value().unwrap().mean_ms;
        assert!((mean - 0.475).abs() < 0.05, "seed {seed}: {mean} after it");
    }
}

#[test]
fn a_sink_that_wanders_or_stalls_now_and_then_has_not_changed() {
    let (mut wandering, mut stalling, mut lots) = (FlushCostTracker::default(), FlushCostTracker::default(), Lots(11));
    let (mut steps_of_wandering, mut steps_of_stalling) = (0, 0);
    for _ in 0..1_000 {
        // Every span has a mean of its own, 1 ms and a fifth more or less.
        let mean = 800 + lots.below(400);
        let span = span(&mut lots, 40, (8 << 10, 8 << 10), mean, 2, 100);
        steps_of_wandering += usize::from(wandering.observe(&span).is_some());
        // One flush in fifty takes ten times as long.
        let took = |lots: &mut Lots| if lots.below(50) == 0 { 10_000 } else { 950 + lots.below(100) };
        let span = sums((0..40).map(|_| ((8 << 10) + lots.below(8 << 10), took(&mut lots))).collect::<Vec<_>>());
        steps_of_stalling += usize::from(stalling.observe(&span).is_some());
    }
    assert!(steps_of_wandering <= 5, "{steps_of_wandering} steps in 100 s");
    assert!(steps_of_stalling <= 5, "{steps_of_stalling} steps in 100 s");
}

#[test]
fn a_span_that_holds_flushes_of_both_sinks_bends_no_slope() {
    let (mut tracker, mut lots) = (FlushCostTracker::default(), Lots(5));
    for _ in 0..40 {
        tracker.observe(&span(&mut lots, 20, (5 << 10, 600), 1_200, 0, 100));
    }
    // In the middle of it each flush takes 10 ms, and so each holds more.
    let old = [(5_400, 1_210), (5_300, 1_260), (5_500, 1_230), (5_350, 1_240)];
    let new = [(5_400, 10_240), (26_000, 10_190), (26_500, 10_260)];
    assert_eq!(tracker.observe(&sums(old.into_iter().chain(new))), None);
    let meanwhile = tracker.value().unwrap();
    assert!((meanwhile.mean_ms - 1.25).abs() < 0.05, "one span proves nothing: {meanwhile:?}");
    assert!(tracker.observe(&span(&mut lots, 7, (26 << 10, 600), 10_200, 0, 100)).is_some());
    for spans in 0..20 {
        let cost = tracker.value().unwrap();
        assert!((cost.at_ms(26_900.0) - 10.25).abs() < 0.1, "{spans}: {cost:?}");
        let fixed = cost.line.map_or(cost.mean_ms, |line| line.fixed_ms);
        assert!((fixed - 10.25).abs() < 1.0, "{spans}: {cost:?}");
        tracker.observe(&span(&mut lots, 7, (26 << 10, 600), 10_200, 0, 100));
    }
}

#[test]
fn one_stalled_flush_does_not_become_the_cost() {
    let (mut tracker, mut lots) = (FlushCostTracker::default(), Lots(1));
    for _ in 0..50 {
        tracker.observe(&span(&mut lots, 5, (20 << 10, 60 << 10), 3_000, 10, 200));
    }
    tracker.observe(&sums([(50 << 10, 400_000)]));
    let after_stall = tracker.value().unwrap();
    assert!(after_stall.mean_ms < 3.9, "{after_stall:?}");
    for _ in 0..10 {
        tracker.observe(&span(&mut lots, 5, (20 << 10, 60 << 10), 3_000, 10, 200));
    }
    let cost = tracker.value().unwrap();
    assert!((cost.at_ms(51_200.0) - 3.6).abs() < 0.2, "{cost:?}");
}

#[test]
fn a_fixed_cost_that_wanders_does_not_bend_the_slope() {
    let (mut tracker, mut lots) = (FlushCostTracker::default(), Lots(1));
    for i in 0..400_u64 {
        // The dearer the sink, the bigger the batches, as a backlog makes them: between spans the two are confounded.
        let wander = 40 * (i % 50).abs_diff(25);
        let size = ((20 << 10) + 1_000 * (i % 50).abs_diff(25), 20 << 10);
        tracker.observe(&span(&mut lots, 8, size, 2_000 + wander, 20, 50));
    }
    let line = tracker.value().unwrap().line.unwrap();
    assert!((line.per_kib_us - 20.0).abs() < 2.0, "{line:?}");
}

#[test]
fn a_slope_once_learnt_serves_while_sizes_are_alike() {
    let (mut tracker, mut lots) = (FlushCostTracker::default(), Lots(1));
    for _ in 0..40 {
        tracker.observe(&span(&mut lots, 5, (20 << 10, 60 << 10), 3_000, 20, 100));
    }
    for _ in 0..200 {
        tracker.observe(&span(&mut lots, 5, (64 << 10, 1), 3_000, 20, 100));
    }
    let line = tracker.value().unwrap().line.unwrap();
    assert!((line.fixed_ms - 3.05).abs() < 0.15 && (line.per_kib_us - 20.0).abs() < 2.0, "{line:?}");
}

proptest! {
    #[test]
    fn whatever_the_sums_every_number_is_finite_and_none_negative(
        spans in proptest::collection::vec(
            (0..1_u64 << 40, any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>()), 1..40),
    ) {
        let mut tracker = FlushCostTracker::default();
        for (flushes, bytes, bytes_squared, duration_ns, bytes_us, us_squared) in spans {
            tracker.observe(&FlushSums { flushes, bytes, bytes_squared, duration_ns, bytes_us, us_squared });
            if let Some(cost) = tracker.value() {
                for number in [cost.mean_ms, cost.mean_bytes, cost.noise_ms, cost.flushes] {
                    prop_assert!(number.is_finite() && number >= 0.0, "{:?}", cost);
                }
                if let Some(line) = cost.line {
                    for number in [line.fixed_ms, line.fixed_error_ms, line.per_kib_us, line.per_kib_error_us] {
                        prop_assert!(number.is_finite() && number >= 0.0, "{:?}", cost);
                    }
                }
            }
        }
    }
}
