//! The picture of a load: latency second by second above the rate that caused it, and the curve of percentiles of the
//! whole. Latencies of a finished run in, one SVG file out; the warm-up is left out.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::latency::Second;
use super::report::LoadReport;
use super::schedule::Schedule;
use crate::plot::{Anchor, Panel, Scale, Svg, ms_words};

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 730.0;
const LEFT: f64 = 72.0;
const INNER: f64 = WIDTH - LEFT - 120.0;

/// What is drawn.
pub(super) struct Picture<'a> {
    pub(super) title: &'a str,
    pub(super) schedule: &'a Schedule,
    pub(super) measured_from: usize,
    pub(super) seconds: &'a [Second],
    pub(super) all: &'a Histogram<u64>,
    pub(super) report: &'a LoadReport,
}

impl Picture<'_> {
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, self.draw()).with_context(|| format!("write {} (does its directory exist?)", path.display()))
    }

    fn draw(&self) -> String {
        let mut svg = Svg::new(WIDTH, HEIGHT);
        svg.text((LEFT, 30.0), "title", Anchor::Start, &shortened(self.title, 96));
        let LoadReport { acknowledged, scheduled, missing, .. } = self.report;
        let gone = if *missing == 0 { String::new() } else { format!(", {missing} never acknowledged") };
        let said =
            format!("{acknowledged} of {scheduled} records acknowledged{gone}; latency from when a record was due");
        svg.text((LEFT, 50.0), "", Anchor::Start, &said);
        self.over_time(&mut svg);
        self.percentiles(&mut svg);
        svg.finish()
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds and rates for the eye")]
    fn over_time(&self, svg: &mut Svg) {
        let first = self.schedule.begins().get(self.measured_from).map_or(0.0, |begin| begin.0 as f64 / 1e9);
        let end = self.schedule.end().0 as f64 / 1e9 - first;
        let at = |slice: usize| self.schedule.begin_of(slice).0 as f64 / 1e9 - first;
        let measured = |slice: usize| self.schedule.slices()[slice].phase >= self.measured_from;
        let seconds: Vec<&Second> = self.seconds.iter().filter(|second| measured(second.slice)).collect();
        let middle = |slice: usize| at(slice) + self.schedule.slices()[slice].span.0 as f64 / 2e9;

        let x = Scale::Linear { low: 0.0, high: end };
        let values = seconds.iter().flat_map(|s| [s.latency.p50_ms, s.latency.p99_ms, s.latency.max_ms]);
        let top = Panel { left: LEFT, top: 92.0, width: INNER, height: 230.0, x, y: Scale::log_around(values) };
        svg.text((LEFT, 80.0), "head", Anchor::Start, "Latency of each second");
        svg.left_axis(&top, ms_words);
        for begin in self.schedule.begins().iter().skip(self.measured_from + 1) {
            let x = top.at((begin.0 as f64 / 1e9 - first, 0.0)).0;
            svg.line((x, top.top), (x, top.bottom()), "grid");
        }
        let mut labels = Vec::new();
        for (class, label, name) in [("c", "tc", "largest"), ("b", "tb", "p99"), ("a", "ta", "p50")] {
            let value = |second: &Second| match name {
                "largest" => second.latency.max_ms,
                "p99" => second.latency.p99_ms,
                _ => second.latency.p50_ms,
            };
            let mut last = None;
            let points = seconds.iter().flat_map(|second| {
                let gap = last.is_some_and(|last| second.slice > last + 1);
                last = Some(second.slice);
                [gap.then_some(None), Some(Some((middle(second.slice), value(second))))]
            });
            svg.path(&top, points.flatten(), class);
            if let Some(last) = seconds.last() {
                labels.push((value(last), label, name.to_owned()));
            }
        }
        svg.end_labels(&top, labels);

        let rates: Vec<(f64, f64)> = (0..self.schedule.slices().len())
            .filter(|slice| measured(*slice))
            .map(|slice| {
                let of = self.schedule.slices()[slice];
                (at(slice), of.records as f64 * 1e9 / of.span.0 as f64)
            })
            .collect();
        let most = rates.iter().map(|(_, rate)| *rate).fold(0.0, f64::max);
        let strip = Panel { top: 334.0, height: 64.0, y: Scale::Linear { low: 0.0, high: most.max(1.0) }, ..top };
        svg.steps(&strip, &rates, end);
        svg.text((LEFT - 8.0, strip.top + 10.0), "", Anchor::End, &rate_words(most));
        svg.text((strip.right() + 8.0, strip.bottom() - 4.0), "tc", Anchor::Start, "records due");
        let ticks: Vec<(f64, String)> = x.ticks().into_iter().map(|tick| (tick, format!("{tick} s"))).collect();
        svg.bottom_axis(&strip, &ticks);
    }

    #[expect(clippy::cast_precision_loss, reason = "latencies for the eye")]
    fn percentiles(&self, svg: &mut Svg) {
        let ms = |q: f64| self.all.value_at_quantile(q) as f64 / 1e3;
        // One in so many records: as far as there are records for.
        let reach = (self.all.len().max(10) as f64).min(1e6);
        let x = Scale::Log { low: 1.0, high: reach };
        let curve: Vec<(f64, f64)> = (0..=240)
            .map(|i| reach.powf(f64::from(i) / 240.0))
            .map(|one_in| (one_in, ms(1.0 - 1.0 / one_in).max(1e-3)))
            .collect();
        let values = curve.iter().map(|(_, ms)| *ms);
        let panel = Panel { left: LEFT, top: 476.0, width: INNER, height: 220.0, x, y: Scale::log_around(values) };
        svg.text((LEFT, 462.0), "head", Anchor::Start, "Share of all records that had at most this latency");
        svg.left_axis(&panel, ms_words);
        let marks =
            [(2.0, "50 %"), (10.0, "90 %"), (100.0, "99 %"), (1e3, "99.9 %"), (1e4, "99.99 %"), (1e5, "99.999 %")];
        let mut ticks = Vec::new();
        for (one_in, words) in marks.into_iter().filter(|(one_in, _)| *one_in <= reach) {
            ticks.push((one_in, words.to_owned()));
            let value = ms(1.0 - 1.0 / one_in).max(1e-3);
            let (x, y) = panel.at((one_in, value));
            svg.line((x, y), (x, panel.bottom()), "mark");
            // Beside the foot of the mark, where the curve is not.
            svg.text((x + 5.0, panel.bottom() - 6.0), "tc", Anchor::Start, &ms_words(value));
        }
        svg.path(&panel, curve.into_iter().map(Some), "b");
        svg.bottom_axis(&panel, &ticks);
    }
}

fn rate_words(rate: f64) -> String {
    if rate >= 10_000.0 { format!("{:.0}k/s", rate / 1e3) } else { format!("{rate:.0}/s") }
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::latency::{Keep, Latencies};
    use crate::load::schedule::Phases;
    use tidegate_client::Nanos;

    fn picture(phases: &str, latency: impl Fn(usize) -> Nanos) -> String {
        let schedule = Schedule::new(phases.parse::<Phases>().unwrap().0);
        let mut latencies = Latencies::new(&schedule, Keep::Phases);
        for due in schedule.walk() {
            latencies.record(&schedule, due.slice, latency(due.slice)).unwrap();
        }
        latencies.finish(&schedule).unwrap();
        let (all, report) = (latencies.merged(|phase| phase >= 1), LoadReport::default());
        let seconds = latencies.seconds();
        let picture =
            Picture { title: "a <run>", schedule: &schedule, measured_from: 1, seconds, all: &all, report: &report };
        picture.draw()
    }

    #[test]
    fn a_picture_tells_its_percentiles_and_leaves_the_warm_up_out() {
        let svg = picture("100x1s,1000x3s", |slice| Nanos::from_millis(if slice == 0 { 900 } else { 20 }));
        assert!(svg.contains("a &lt;run&gt;") && svg.contains("99.9 %") && svg.contains("1000/s"), "{svg}");
        assert!(svg.contains(">20 ms<") && !svg.contains("99.99 %") && !svg.contains("900 ms"), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_run_without_a_single_acknowledgement_has_a_picture_too() {
        let schedule = Schedule::new("10x1s".parse::<Phases>().unwrap().0);
        let all = Histogram::new(3).unwrap();
        let report = LoadReport { scheduled: 10, missing: 10, ..LoadReport::default() };
        let picture =
            Picture { title: "", schedule: &schedule, measured_from: 0, seconds: &[], all: &all, report: &report };
        let svg = picture.draw();
        assert!(svg.contains("10 never acknowledged") && !svg.contains("NaN"), "{svg}");
    }
}
