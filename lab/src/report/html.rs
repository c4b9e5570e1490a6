//! The page of HTML: everything in one file, readable without a network and in light or dark.

use std::fmt::Write;

use super::ms;
use super::plot::{by_phase, escape, front, mark, rank};
use super::style::SHEET;
use crate::compare::digest::{ALL, Comparison, Digest, Row, Weighting};
use crate::compare::plan::Part;
use crate::compare::table::sections;
use crate::tuning::{Done, Holds, Proof};

/// The page.
pub(super) fn render(proof: &Proof) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>Tuning, measured</title><style>{SHEET}</style></head>\
         <body><main><h1>Tuning, measured</h1>"
    );
    let machine = &proof.machine;
    say(&mut page, "soft", &format!("{} processors ({}), Linux {}", machine.cpus, machine.cpu, machine.kernel));
    if proof.quick {
        say(&mut page, "banner", "A quick run: it tries the plumbing, and its figures are not to be quoted.");
    }
    if proof.studies.iter().any(|s| s.digest.quiet.noisy) {
        say(
            &mut page,
            "banner",
            "The machine was not quiet: in some studies too few blocks would have been left, so all of them count there.",
        );
    }
    verdicts(&mut page, proof);
    if !proof.no_help.is_empty() {
        page.push_str("<h3>Where tuning does not help</h3><ul>");
        for sentence in &proof.no_help {
            write!(page, "<li>{}</li>", escape(sentence)).ok();
        }
        page.push_str("</ul>");
    }
    for done in &proof.studies {
        study(&mut page, done);
    }
    highest(&mut page, proof);
    page.push_str("</main></body></html>\n");
    page
}

fn say(page: &mut String, class: &str, text: &str) {
    write!(page, "<p class=\"{class}\">{}</p>", escape(text)).ok();
}

fn verdicts(page: &mut String, proof: &Proof) {
    page.push_str("<h2>Asked, measured, holds</h2><div class=\"scroll\"><table><tr><th></th><th>asked</th><th>measured</th><th>remark</th></tr>");
    let mut of = "";
    for v in &proof.verdicts {
        if v.of != of {
            write!(page, "<tr class=\"head\"><td colspan=\"4\">{}</td></tr>", escape(&v.of)).ok();
            of = &v.of;
        }
        let class = match v.holds {
            Holds::Yes => "yes",
            Holds::No => "no",
            Holds::Unknown => "unknown",
        };
        write!(
            page,
            "<tr><td><span class=\"tag {class}\">{}</span></td><td>{}</td><td>{}</td><td class=\"soft\">{}</td></tr>",
            v.holds,
            escape(&v.asked),
            escape(&v.measured),
            escape(&v.remark)
        )
        .ok();
    }
    page.push_str("</table></div>");
}

fn study(page: &mut String, done: &Done) {
    let digest = &done.digest;
    write!(page, "<h2>{}</h2>", escape(&digest.title)).ok();
    let quiet = &digest.quiet;
    let cap = digest.busy_cap.map_or_else(String::new, |cap| format!(", cap on the busy share {cap}"));
    say(
        page,
        "soft",
        &format!(
            "Sink {}, phases {}, records of {} bytes{cap}. {} blocks ran, {} left out; others took at most {:.1} % of \
             the machine; {} lanes at once took at most {:.2} cores with the agent.",
            digest.sink,
            said(&digest.phases),
            digest.record_bytes,
            quiet.run,
            quiet.dropped,
            quiet.foreign.iter().copied().fold(0.0, f64::max) * 100.0,
            digest.lanes_at_once,
            quiet.cores
        ),
    );
    say(page, "", &resolution(digest));
    legend(page, digest);
    for part in [Part::Settled, Part::FirstSecond] {
        page.push_str(&by_phase(digest, part).unwrap_or_default());
    }
    fronts(
        page,
        digest,
        "The front: tail against CPU (nearer the lower left is better)",
        |r| r.cpu_ms_per_1000,
        "CPU ms per 1,000 events",
    );
    fronts(page, digest, "The front: tail against flushes", |r| r.flushes_per_1000, "flushes per 1,000 events");
    table(page, digest);
    if let Some(found) = &done.found {
        let words: Vec<String> =
            digest.ran.iter().filter(|r| r.label == "oracle").flat_map(|r| r.constants.iter().cloned()).collect();
        say(page, "soft", &format!("Best single constant: {}. Oracle by phase: {}.", found.best, words.join(", ")));
    }
}

fn fronts(page: &mut String, digest: &Digest, title: &str, cost: fn(&Row) -> f64, cost_name: &str) {
    write!(page, "<h3>{}</h3><div class=\"plots\">", escape(title)).ok();
    for phase in digest.groups.iter().map(String::as_str).chain([ALL]) {
        page.push_str(&front(digest, phase, cost, cost_name).unwrap_or_default());
    }
    page.push_str("</div>");
}

/// The phases as people say them.
fn said(phases: &str) -> String {
    let one = |phase: &str| match phase.split_once('x') {
        Some((rate, span)) => format!("{rate}/s for {span}"),
        None => phase.to_owned(),
    };
    phases.split(',').map(one).collect::<Vec<_>>().join(", ")
}

/// What this machine could tell apart, in words.
fn resolution(digest: &Digest) -> String {
    let fits = |c: &&Comparison| c.weighting == Weighting::Event && c.part == Part::Settled;
    let show =
        |c: &Comparison| format!("{} {:.2} ({:.2} to {:.2})", c.phase, c.ratio.median, c.ratio.low(), c.ratio.high());
    let pairs: Vec<String> = digest.aa.iter().filter(fits).map(show).collect();
    if pairs.is_empty() {
        return "No A/A ran here: what this machine can tell apart is not known.".to_owned();
    }
    format!(
        "A/A, the same policy under two names, p99: {}. Differences within these intervals mean nothing.",
        pairs.join("; ")
    )
}

fn legend(page: &mut String, digest: &Digest) {
    let mut ran: Vec<_> = digest.ran.iter().collect();
    ran.sort_by_key(|r| rank(&r.label));
    page.push_str("<div class=\"legend\">");
    for r in ran {
        let key = mark(&r.label, 9.0, 8.0, &r.label);
        let policy = r.policy.to_string();
        let what = match r.label.as_str() {
            label if label == policy => label.to_owned(),
            "oracle" => "oracle (best constant of each phase)".to_owned(),
            label => format!("{label} ({policy})"),
        };
        write!(page, "<span><svg class=\"key\" viewBox=\"0 0 20 16\">{key}</svg> {}</span>", escape(&what)).ok();
    }
    page.push_str("</div>");
}

fn table(page: &mut String, digest: &Digest) {
    page.push_str("<details><summary>All figures</summary><div class=\"scroll\"><table>");
    let header = [
        "",
        "p50 ms",
        "p99 ms",
        "of blocks",
        "p99.9 ms",
        "mean ms",
        "flushes/1000",
        "CPU ms/1000",
        "busy",
        "panics",
        "tail records",
    ];
    page.push_str("<tr>");
    for (i, name) in header.iter().enumerate() {
        write!(page, "<th{}>{name}</th>", if i > 0 { " class=\"n\"" } else { "" }).ok();
    }
    page.push_str("</tr>");
    for (phase, weighting, title) in sections(digest) {
        for part in [Part::Settled, Part::FirstSecond, Part::Whole] {
            let fits = |r: &&Row| r.phase == phase && r.part == part && r.weighting == weighting;
            let rows: Vec<&Row> = digest.rows.iter().filter(fits).collect();
            if rows.is_empty() {
                continue;
            }
            write!(page, "<tr class=\"head\"><td colspan=\"11\">{}, {part}</td></tr>", escape(&title)).ok();
            for row in rows {
                let ours = if row.policy == "model" { " class=\"ours\"" } else { "" };
                let interval =
                    row.p99_interval_ms.map_or_else(|| "–".to_owned(), |i| format!("{} to {}", ms(i.low), ms(i.high)));
                let cells = [
                    ms(row.p50_ms),
                    ms(row.p99_ms),
                    interval,
                    ms(row.p999_ms),
                    ms(row.mean_ms),
                    ms(row.flushes_per_1000),
                    ms(row.cpu_ms_per_1000),
                    format!("{:.2}", row.busy),
                    row.panics.to_string(),
                    row.tail_records.to_string(),
                ];
                write!(page, "<tr{ours}><td>{}</td>", escape(&row.policy)).ok();
                for cell in cells {
                    write!(page, "<td class=\"n\">{cell}</td>").ok();
                }
                page.push_str("</tr>");
            }
        }
    }
    page.push_str("</table></div></details>");
}

fn highest(page: &mut String, proof: &Proof) {
    if proof.highest.is_empty() {
        return;
    }
    page.push_str("<h2>Highest rate with a p99 of 50 ms</h2><table><tr><th></th><th class=\"n\">events/s</th><th class=\"n\">p99 ms there</th><th class=\"n\">runs</th></tr>");
    for h in &proof.highest {
        let end = if h.at_end { " or more" } else { "" };
        write!(
            page,
            "<tr><td>{}</td><td class=\"n\">{}{end}</td><td class=\"n\">{}</td><td class=\"n\">{}</td></tr>",
            escape(&h.policy),
            h.rate,
            ms(h.p99_ms),
            h.tried.len()
        )
        .ok();
    }
    page.push_str("</table>");
}
