//! The plots of a study: rows in, SVG out. The front of the tail against a cost, and the tail by phase. Colour and shape
//! both name a policy, so that neither is needed alone.

use std::fmt::Write;

use super::axis::{Axis, label};
use super::ms;
use crate::compare::digest::{ALL, Digest, Row, Weighting};
use crate::compare::plan::Part;

/// Colours of the style sheet.
const COLOURS: usize = 10;

/// Place of a policy in colour and shape, the same in every plot of the report.
pub(super) fn rank(policy: &str) -> usize {
    let known = ["model", "oracle", "best", "greedy", "fixed", "regime", "l0", "default", "model again"];
    known.iter().position(|k| *k == policy).unwrap_or(COLOURS - 1)
}

/// The mark of a policy at a point.
pub(super) fn mark(policy: &str, x: f64, y: f64, title: &str) -> String {
    let n = rank(policy);
    let title = escape(title);
    let path = |d: String| format!("<path class=\"p{n}\" d=\"{d}\"><title>{title}</title></path>");
    match n {
        0 => format!("<circle class=\"p0 ours\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"6.5\"><title>{title}</title></circle>"),
        1 | 5 => path(format!("M{:.1} {:.1}l6 6l-6 6l-6 -6z", x, y - 6.0)),
        2 | 6 => path(format!("M{:.1} {:.1}h9v9h-9z", x - 4.5, y - 4.5)),
        3 | 7 => path(format!("M{:.1} {:.1}l6 10.5h-12z", x, y - 6.5)),
        4 => path(format!("M{:.1} {:.1}l-6 -10.5h12z", x, y + 6.5)),
        _ => format!(
            "<circle class=\"p{n} hollow\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"><title>{title}</title></circle>"
        ),
    }
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const WIDTH: f64 = 380.0;
const HEIGHT: f64 = 270.0;
const LEFT: f64 = 52.0;
const BOTTOM: f64 = 42.0;
const TOP: f64 = 30.0;
const RIGHT: f64 = 14.0;

/// The lines of the upright axis, each with its value.
fn levels(svg: &mut String, y: &Axis, right: f64) {
    for tick in y.ticks() {
        let at = y.at(tick);
        write!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>").ok();
        write!(
            svg,
            "<text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 7.0,
            at + 4.0,
            label(tick)
        )
        .ok();
    }
}

fn frame(svg: &mut String, title: &str, x: &Axis, y: &Axis, x_name: &str) {
    let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
    write!(svg, "<text class=\"title\" x=\"{LEFT}\" y=\"18\">{}</text>", escape(title)).ok();
    levels(svg, y, right);
    let mut last = f64::NEG_INFINITY;
    for tick in x.ticks() {
        let at = x.at(tick);
        write!(svg, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>").ok();
        if at - last > 26.0 {
            write!(
                svg,
                "<text class=\"tick\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                label(tick)
            )
            .ok();
            last = at;
        }
    }
    write!(
        svg,
        "<text class=\"tick\" x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>",
        HEIGHT - 6.0,
        escape(x_name)
    )
    .ok();
}

/// The p99 against a cost in one phase, or in all of them by seconds.
pub(super) fn front(digest: &Digest, phase: &str, cost: fn(&Row) -> f64, cost_name: &str) -> Option<String> {
    let (part, weighting) =
        if phase == ALL { (Part::Whole, Weighting::Time) } else { (Part::Settled, Weighting::Event) };
    let rows: Vec<&Row> = digest
        .rows
        .iter()
        .filter(|r| r.phase == phase && r.part == part && r.weighting == weighting && cost(r) > 0.0)
        .collect();
    let x = Axis::of(rows.iter().map(|r| cost(r)), LEFT, WIDTH - RIGHT)?;
    let y = Axis::of(rows.iter().map(|r| r.p99_ms), HEIGHT - BOTTOM, TOP)?;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">", escape(phase));
    let title = if phase == ALL { "whole run, by seconds: p99, ms".to_owned() } else { format!("{phase}: p99, ms") };
    frame(&mut svg, &title, &x, &y, cost_name);
    // The front: what nothing else beats in both.
    let mut best: Vec<&&Row> = rows
        .iter()
        .filter(|r| {
            !rows
                .iter()
                .any(|o| cost(o) <= cost(r) && o.p99_ms <= r.p99_ms && (cost(o), o.p99_ms) != (cost(r), r.p99_ms))
        })
        .collect();
    best.sort_by(|a, b| cost(a).total_cmp(&cost(b)));
    let points: Vec<String> = best.iter().map(|r| format!("{:.1} {:.1}", x.at(cost(r)), y.at(r.p99_ms))).collect();
    if points.len() > 1 {
        write!(svg, "<path class=\"front\" d=\"M{}\"/>", points.join("L")).ok();
    }
    // Ours last, so that nothing covers it.
    let mut order = rows.clone();
    order.sort_by_key(|r| std::cmp::Reverse(rank(&r.policy)));
    for row in order {
        let title = format!("{}: p99 {} ms, {} {cost_name}", row.policy, ms(row.p99_ms), ms(cost(row)));
        svg.push_str(&mark(&row.policy, x.at(cost(row)), y.at(row.p99_ms), &title));
    }
    svg.push_str("</svg>");
    Some(svg)
}

/// The p99 of every policy by phase, with intervals.
pub(super) fn by_phase(digest: &Digest, part: Part) -> Option<String> {
    const WIDE: f64 = 1160.0;
    let rows: Vec<&Row> =
        digest.rows.iter().filter(|r| r.part == part && r.weighting == Weighting::Event && r.phase != ALL).collect();
    let bounds = rows.iter().flat_map(|r| r.p99_interval_ms.map_or([r.p99_ms; 3], |i| [i.low, r.p99_ms, i.high]));
    let y = Axis::of(bounds, HEIGHT - BOTTOM, TOP)?;
    let mut svg =
        format!("<svg class=\"wide\" viewBox=\"0 0 {WIDE} {HEIGHT}\" role=\"img\" aria-label=\"p99 by phase\">");
    write!(svg, "<text class=\"title\" x=\"{LEFT}\" y=\"18\">p99 by phase, {part}, ms</text>").ok();
    levels(&mut svg, &y, WIDE - RIGHT);
    let phases: Vec<&String> = digest.groups.iter().filter(|g| rows.iter().any(|r| r.phase == **g)).collect();
    let mut policies: Vec<&str> = digest.ran.iter().map(|r| r.label.as_str()).collect();
    policies.sort_by_key(|p| rank(p));
    #[expect(clippy::cast_precision_loss, reason = "a handful of phases and policies")]
    let (room, count) = ((WIDE - LEFT - RIGHT) / phases.len().max(1) as f64, policies.len().max(1) as f64);
    let mut left = LEFT;
    for phase in phases {
        write!(
            svg,
            "<text class=\"tick\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            left + room / 2.0,
            HEIGHT - BOTTOM + 18.0,
            escape(phase)
        )
        .ok();
        if left > LEFT {
            write!(svg, "<path class=\"rule\" d=\"M{left:.1} {TOP}V{}\"/>", HEIGHT - BOTTOM).ok();
        }
        let step = (room * 0.86 / count).min(26.0);
        let mut x = left + room / 2.0 - step * (count - 1.0) / 2.0;
        for policy in &policies {
            if let Some(row) = rows.iter().find(|r| r.phase == *phase && r.policy == **policy) {
                if let Some(i) = row.p99_interval_ms {
                    let (low, high) = (y.at(i.low), y.at(i.high));
                    write!(svg, "<path class=\"whisker\" d=\"M{x:.1} {low:.1}V{high:.1}\"/>").ok();
                }
                svg.push_str(&mark(policy, x, y.at(row.p99_ms), &format!("{policy}: {} ms", ms(row.p99_ms))));
            }
            x += step;
        }
        left += room;
    }
    svg.push_str("</svg>");
    Some(svg)
}
