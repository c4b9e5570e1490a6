//! The style sheet of the report: light and dark, by the reader's own setting.

/// Colours that are told apart by people who do not see all of them; the model alone is filled and large.
pub(super) const SHEET: &str = "
:root{color-scheme:light dark;--paper:#fbfaf7;--ink:#1d2329;--soft:#5d6873;--line:#dcd9d1;--card:#fff;--good:#0b7a4b;--bad:#b3261e;--open:#8a6100;
--c0:#0b6bcb;--c1:#111827;--c2:#7a5195;--c3:#d1495b;--c4:#8d99a6;--c5:#c77700;--c6:#2f9e77;--c7:#5f6b3a;--c8:#7fb2ea;--c9:#888}
@media(prefers-color-scheme:dark){:root{--paper:#14181c;--ink:#e6e9ec;--soft:#9aa5b1;--line:#2c343c;--card:#1a2026;--good:#4cc38a;--bad:#ff8a80;--open:#e3b341;
--c0:#5aa9ff;--c1:#f3f4f6;--c2:#b99be0;--c3:#ff7a8a;--c4:#7d8894;--c5:#f0a83c;--c6:#59d0a4;--c7:#a9b87a;--c8:#3d6fa3;--c9:#888}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1240px;margin:0 auto;padding:32px 24px 64px}
h1{font-size:28px;line-height:1.2;margin:0 0 4px}h2{font-size:20px;margin:44px 0 4px;padding-top:20px;border-top:1px solid var(--line)}h3{font-size:15px;margin:20px 0 6px}
p{margin:4px 0 10px;max-width:84ch}.soft{color:var(--soft)}
.banner{background:color-mix(in srgb,var(--open) 14%,transparent);border-left:4px solid var(--open);padding:8px 14px;margin:14px 0;max-width:none}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:13.5px;font-variant-numeric:tabular-nums}
th{text-align:left;font-weight:600;color:var(--soft);border-bottom:1px solid var(--line);padding:5px 10px 5px 0;white-space:nowrap}
td{border-bottom:1px solid var(--line);padding:5px 10px 5px 0;vertical-align:top}
th.n,td.n{text-align:right;white-space:nowrap}tr.head td{font-weight:600;padding-top:14px;border-bottom:1px solid var(--soft)}
tr.ours td{background:color-mix(in srgb,var(--c0) 9%,transparent)}
.tag{display:inline-block;min-width:80px;white-space:nowrap;text-align:center;border-radius:4px;padding:0 8px;font-weight:600;font-size:12.5px;border:1px solid currentColor}
.yes{color:var(--good)}.no{color:var(--bad)}.unknown{color:var(--open)}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(330px,1fr));gap:14px;margin:12px 0}
svg{width:100%;height:auto;background:var(--card);border:1px solid var(--line);border-radius:8px;display:block}
svg.key{width:20px;height:16px;background:none;border:0;display:inline-block;vertical-align:-3px;overflow:visible}
.wide{margin:12px 0}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;margin:10px 0;font-size:13.5px}.legend span{white-space:nowrap}
text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:var(--ink)}text.tick{fill:var(--soft);font-size:11.5px}text.title{font-weight:600;font-size:13px}
.grid{stroke:var(--line);stroke-width:1;fill:none}.rule{stroke:var(--soft);stroke-width:1;stroke-dasharray:2 4;fill:none}
.front{stroke:var(--soft);stroke-width:1.5;stroke-dasharray:5 4;fill:none}.whisker{stroke:var(--soft);stroke-width:1.4;fill:none}
.p0{fill:var(--c0)}.p1{fill:var(--c1)}.p2{fill:var(--c2)}.p3{fill:var(--c3)}.p4{fill:var(--c4)}.p5{fill:var(--c5)}.p6{fill:var(--c6)}.p7{fill:var(--c7)}.p8{fill:var(--card);stroke:var(--c0);stroke-width:2}.p9{fill:var(--c9)}
.ours{stroke:var(--card);stroke-width:1.5}
details{margin:10px 0}summary{cursor:pointer;color:var(--soft)}
ul{padding-left:20px;max-width:90ch}li{margin:3px 0}
";
