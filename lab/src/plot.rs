//! Plots as plain SVG: scales and values in, shapes and text out, light or dark as the reader's system is. No script, no
//! font, no picture from elsewhere. Own code and not a library: a library's SVG has its colours baked in, and what is
//! needed of one is two scales and a line.

use std::fmt::Write as _;

/// Colours by role; the dark ones apply where the reader's system is dark.
const STYLE: &str = "\
:root{--back:#fff;--ink:#1f2933;--soft:#66727f;--grid:#e6e9ed;--a:#1f6fb2;--b:#d9640a;--c:#9aa4af;--fill:#dbe7f3}
@media(prefers-color-scheme:dark){:root{--back:#14181d;--ink:#e8ecf0;--soft:#9aa5b1;--grid:#2a3138;--a:#6db3f2;--b:#ff9f4a;\
--c:#6b7682;--fill:#22384d}}
svg{background:var(--back)}
text{font:12px system-ui,sans-serif;fill:var(--soft)}
.title{font-size:14px;font-weight:600;fill:var(--ink)}.head{font-size:13px;font-weight:600;fill:var(--ink)}
.grid{stroke:var(--grid);fill:none}.mark{stroke:var(--soft);stroke-dasharray:3 3;fill:none}
.a,.b,.c{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
.a{stroke:var(--a)}.b{stroke:var(--b)}.c{stroke:var(--c);stroke-width:1.2}
.ta{fill:var(--a);font-weight:600}.tb{fill:var(--b);font-weight:600}.tc{fill:var(--soft)}
.area{fill:var(--fill)}
";

/// Values to shares of an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scale {
    Linear { low: f64, high: f64 },
    Log { low: f64, high: f64 },
}

impl Scale {
    /// Logarithmic, from and to a round number that leaves room around all of `values` above 0.
    pub(crate) fn log_around(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .filter(|value| value.is_finite() && *value > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        if low > high {
            return Self::Log { low: 0.1, high: 10.0 };
        }
        let round = |value: f64, up: bool| {
            let decade = 10_f64.powf(value.log10().floor());
            let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
            let above = steps.iter().copied().find(|step| *step >= value * (1.0 - 1e-9));
            let below = steps.iter().rev().copied().find(|step| *step <= value * (1.0 + 1e-9));
            if up { above.unwrap_or(value) } else { below.unwrap_or(value) }
        };
        let (low, high) = (round(low, false), round(high, true));
        Self::Log { low, high: if high > low { high } else { low * 10.0 } }
    }

    /// Where a value lies: 0 at the low end, 1 at the high one.
    pub(crate) fn share(self, value: f64) -> f64 {
        match self {
            Self::Linear { low, high } => (value - low) / (high - low),
            Self::Log { low, high } => (value.max(low * 1e-3) / low).ln() / (high / low).ln(),
        }
        .clamp(0.0, 1.0)
    }

    /// Round values on the axis, a handful of them.
    pub(crate) fn ticks(self) -> Vec<f64> {
        match self {
            Self::Linear { low, high } => {
                let rough = (high - low) / 5.0;
                let decade = 10_f64.powf(rough.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|s| s * decade).into_iter().find(|s| *s >= rough).unwrap_or(rough);
                let mut ticks = Vec::new();
                let mut tick = (low / step).ceil() * step;
                while tick <= high + step * 1e-6 {
                    ticks.push(tick);
                    tick += step;
                }
                ticks
            }
            Self::Log { low, high } => {
                let decades = (high / low).log10();
                let steps: &[f64] = if decades > 4.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let mut ticks = Vec::new();
                let mut decade = 10_f64.powf(low.log10().floor());
                while decade <= high * (1.0 + 1e-9) {
                    let within = |tick: &f64| (low * (1.0 - 1e-9)..=high * (1.0 + 1e-9)).contains(tick);
                    ticks.extend(steps.iter().map(|step| step * decade).filter(within));
                    decade *= 10.0;
                }
                ticks
            }
        }
    }
}

/// A rectangle to draw in, with its scales.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panel {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) width: f64,
    pub(crate) height: f64,
    pub(crate) x: Scale,
    pub(crate) y: Scale,
}

impl Panel {
    pub(crate) fn at(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (self.left + self.width * self.x.share(x), self.top + self.height * (1.0 - self.y.share(y)))
    }

    pub(crate) fn bottom(&self) -> f64 {
        self.top + self.height
    }

    pub(crate) fn right(&self) -> f64 {
        self.left + self.width
    }
}

/// Where a text is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture that is being drawn.
pub(crate) struct Svg {
    body: String,
    width: f64,
    height: f64,
}

// Writing to a string cannot fail, which is what every `ok` below lets go.
impl Svg {
    pub(crate) fn new(width: f64, height: f64) -> Self {
        Self { body: String::new(), width, height }
    }

    pub(crate) fn text(&mut self, (x, y): (f64, f64), class: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        writeln!(self.body, r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{text}</text>"#).ok();
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x, y), (x2, y2)) = (from, to);
        writeln!(self.body, r#"<path d="M{x:.1} {y:.1}L{x2:.1} {y2:.1}" class="{class}"/>"#).ok();
    }

    /// A line through points; `None` is a gap.
    pub(crate) fn path(&mut self, panel: &Panel, points: impl Iterator<Item = Option<(f64, f64)>>, class: &str) {
        let (mut data, mut pen) = (String::new(), 'M');
        let mut points = points.peekable();
        while let Some(point) = points.next() {
            let Some((x, y)) = point.map(|point| panel.at(point)) else {
                pen = 'M';
                continue;
            };
            let alone = pen == 'M' && points.peek().is_none_or(Option::is_none);
            if alone {
                // A point between gaps is seen as a short dash.
                write!(data, "M{:.1} {y:.1}h8", x - 4.0).ok();
            } else {
                write!(data, "{pen}{x:.1} {y:.1}").ok();
            }
            pen = 'L';
        }
        writeln!(self.body, r#"<path d="{data}" class="{class}"/>"#).ok();
    }

    /// Steps over the bottom of a panel: each value holds from its x to the next.
    pub(crate) fn steps(&mut self, panel: &Panel, steps: &[(f64, f64)], end: f64) {
        let Some((first, _)) = steps.first() else { return };
        let mut data = format!("M{:.1} {:.1}", panel.at((*first, 0.0)).0, panel.bottom());
        for (i, (from, value)) in steps.iter().enumerate() {
            let to = steps.get(i + 1).map_or(end, |(next, _)| *next);
            let ((x, y), (x2, _)) = (panel.at((*from, *value)), panel.at((to, *value)));
            write!(data, "L{x:.1} {y:.1}L{x2:.1} {y:.1}").ok();
        }
        writeln!(self.body, r#"<path d="{data}L{:.1} {:.1}Z" class="area"/>"#, panel.at((end, 0.0)).0, panel.bottom())
            .ok();
    }

    /// Grid lines and their words on the left.
    pub(crate) fn left_axis(&mut self, panel: &Panel, words: impl Fn(f64) -> String) {
        for tick in panel.y.ticks() {
            let y = panel.top + panel.height * (1.0 - panel.y.share(tick));
            self.line((panel.left, y), (panel.right(), y), "grid");
            self.text((panel.left - 8.0, y + 4.0), "", Anchor::End, &words(tick));
        }
    }

    /// Words at values below.
    pub(crate) fn bottom_axis(&mut self, panel: &Panel, ticks: &[(f64, String)]) {
        for (tick, words) in ticks {
            let x = panel.left + panel.width * panel.x.share(*tick);
            self.line((x, panel.bottom()), (x, panel.bottom() + 4.0), "grid");
            self.text((x, panel.bottom() + 18.0), "", Anchor::Middle, words);
        }
    }

    /// Labels at the right of a panel, moved apart where they would lie on one another.
    pub(crate) fn end_labels(&mut self, panel: &Panel, mut labels: Vec<(f64, &str, String)>) {
        const APART: f64 = 15.0;
        labels.sort_by(|a, b| b.0.total_cmp(&a.0));
        let mut above = f64::NEG_INFINITY;
        for (value, class, words) in labels {
            let y = (panel.top + panel.height * (1.0 - panel.y.share(value)) + 4.0).max(above + APART);
            self.text((panel.right() + 8.0, y), class, Anchor::Start, &words);
            above = y;
        }
    }

    pub(crate) fn finish(self) -> String {
        let Self { body, width, height } = self;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
             height=\"{height}\" role=\"img\">\n<style>{STYLE}</style>\n{body}</svg>\n"
        )
    }
}

/// Milliseconds as a person says them.
pub(crate) fn ms_words(ms: f64) -> String {
    let plain = |value: f64, unit: &str| {
        let digits = if value >= 100.0 {
            0
        } else if value >= 10.0 {
            1
        } else {
            2
        };
        let text = format!("{value:.digits$}");
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        format!("{text} {unit}")
    };
    if ms >= 1_000.0 {
        plain(ms / 1e3, "s")
    } else if ms >= 0.1 || ms <= 0.0 {
        plain(ms, "ms")
    } else {
        plain(ms * 1e3, "µs")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: &[f64], want: &[f64]) {
        let same = got.len() == want.len() && got.iter().zip(want).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs());
        assert!(same, "{got:?}, want {want:?}");
    }

    #[test]
    fn a_logarithmic_scale_is_round_and_holds_its_values() {
        let scale = Scale::log_around([0.34, 7.0, 42.0].into_iter());
        near(&scale.ticks(), &[0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0]);
        near(&[scale.share(0.2), scale.share(50.0)], &[0.0, 1.0]);
        assert!((scale.share((0.2_f64 * 50.0).sqrt()) - 0.5).abs() < 1e-9);
        near(&Scale::log_around([3.0].into_iter()).ticks(), &[2.0, 5.0]);
        near(&Scale::log_around([1.0].into_iter()).ticks(), &[1.0, 2.0, 5.0, 10.0]);
        assert_eq!(Scale::log_around([0.0, f64::NAN].into_iter()), Scale::Log { low: 0.1, high: 10.0 });
    }

    #[test]
    fn a_linear_scale_has_a_handful_of_round_ticks() {
        near(&Scale::Linear { low: 0.0, high: 44.0 }.ticks()[1..], &[10.0, 20.0, 30.0, 40.0]);
        near(&Scale::Linear { low: 0.0, high: 3.0 }.ticks()[1..], &[1.0, 2.0, 3.0]);
    }

    #[test]
    fn what_is_said_cannot_become_markup_and_gaps_stay_gaps() {
        let unit = Scale::Linear { low: 0.0, high: 1.0 };
        let panel = Panel { left: 0.0, top: 0.0, width: 10.0, height: 10.0, x: unit, y: unit };
        let mut svg = Svg::new(10.0, 10.0);
        svg.text((0.0, 0.0), "", Anchor::Start, "a<b>&c");
        svg.path(&panel, [Some((0.0, 0.0)), Some((0.5, 1.0)), None, Some((1.0, 0.0))].into_iter(), "a");
        let svg = svg.finish();
        assert!(svg.contains("a&lt;b&gt;&amp;c") && svg.contains("M0.0 10.0L5.0 0.0M6.0 10.0h8"), "{svg}");
    }

    #[test]
    fn milliseconds_are_said_in_the_unit_that_fits() {
        let words = [0.05, 0.2, 5.0, 12.34, 500.0, 2_000.0].map(ms_words);
        assert_eq!(words, ["50 µs", "0.2 ms", "5 ms", "12.3 ms", "500 ms", "2 s"]);
    }
}
