//! Exports are opened by the programs that they are for, and those find the totals of the folded output. A reader that is
//! not installed here is skipped, and that is said (`cargo xtask setup` installs them).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Stacks as a host has them: kernel frames, hostile names, a loss; values that do not fit 32 bits where they are times.
fn folded(scale: u64) -> String {
    let stacks = [
        ("app;main;parse<T>;read_[k]", 120),
        ("app;main;parse<T>", 380),
        ("app;main;write \"x\" & <b>", 400),
        ("srv;main;loop;epoll_wait_[k]", 100),
        ("[lost];[lost: ring_full]", 7),
    ];
    let lines: Vec<String> = stacks.iter().map(|(path, count)| format!("{path} {}", count * scale)).collect();
    lines.join("\n")
}

struct Room(tempfile::TempDir);

impl Room {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Exports folded stacks, and checks that their own total survives it.
    fn export(&self, kind: &str, format: &str, scale: u64) -> (PathBuf, u64) {
        let (from, to) = (self.path("stacks.folded"), self.path(&format!("{kind}.{format}")));
        std::fs::write(&from, folded(scale)).expect("a file");
        for (format, to) in [(format, &to), ("folded", &self.path("back.folded"))] {
            let mut import = Command::new(env!("CARGO_BIN_EXE_tidegate"));
            import.arg("import").arg(&from).args(["--kind", kind, "--format", format, "-o"]).arg(to);
            said(&import.output().expect("tidegate runs"));
        }
        let back = std::fs::read_to_string(self.path("back.folded")).expect("it was written");
        let total = back
            .lines()
            .map(|line| line.rsplit_once(' ').and_then(|(_, n)| n.parse::<u64>().ok()).expect("a count"))
            .sum();
        assert_eq!(total, 1007 * scale);
        (to, total)
    }
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn on_path(program: &str) -> Option<PathBuf> {
    let found = std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|p| p.exists());
    if found.is_none() {
        skip(program);
    }
    found
}

fn reader(file: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../dashboards/readers/node_modules").join(file);
    if !path.exists() {
        skip(file);
    }
    path.exists().then_some(path)
}

#[expect(clippy::print_stderr, reason = "a test that is skipped says why")]
fn skip(what: &str) {
    eprintln!("skipped: {what} is not installed here (`cargo xtask setup` installs it)");
}

#[test]
fn go_tool_pprof_finds_the_total_and_the_labels() {
    let Some(go) = on_path("go") else { return };
    let room = Room::new();
    let pprof = |file: &Path, options: &[&str]| {
        let mut command = Command::new(&go);
        command.args(["tool", "pprof", "-symbolize=none"]).args(options).arg(file).env("HOME", room.0.path());
        said(&command.output().unwrap())
    };
    let (cpu, total) = room.export("cpu", "pprof", 1);
    let top = pprof(&cpu, &["-top"]);
    assert!(top.contains(&format!("100% of {total} total")), "{top}");
    assert!(top.contains("epoll_wait") && top.contains("write \"x\" & <b>"), "{top}");
    let tags = pprof(&cpu, &["-tags"]);
    assert!(tags.contains("comm: Total 1007") && tags.contains("srv"), "{tags}");
    let (waits, total) = room.export("offcpu", "pprof", 1_000_000_000);
    let raw = pprof(&waits, &["-raw"]);
    assert!(raw.contains("offcpu/nanoseconds"), "{raw}");
    let top = pprof(&waits, &["-top", "-unit=ns"]);
    assert!(top.contains(&format!("100% of {total}ns total")), "{top}");
}

/// Ends the daemon that was too slow, which names itself.
fn end_daemon(output: &Output) {
    let told = String::from_utf8_lossy(&output.stderr);
    let pid = told.split_once("so run \"kill ").and_then(|(_, rest)| rest.split('"').next()?.parse::<u32>().ok());
    let Some(pid) = pid else { panic!("{told}") };
    // One that has ended meanwhile needs no ending.
    Command::new("kill").arg(pid.to_string()).status().ok();
}

#[test]
fn the_firefox_profiler_finds_the_total() {
    let (Some(node), Some(cli)) = (on_path("node"), reader("@firefox-devtools/profiler-cli/dist/profiler-cli.js"))
    else {
        return;
    };
    let room = Room::new();
    for (kind, scale, factor) in [("cpu", 1, 1.0), ("offcpu", 1_000_000_000, 1e6)] {
        let (file, total) = room.export(kind, "firefox", scale);
        // Its sessions live below the home directory.
        let ask = |arguments: &[&str]| {
            let mut command = Command::new(&node);
            command.arg(&cli).args(arguments).env("HOME", room.0.path()).current_dir(room.0.path());
            said(&command.output().unwrap())
        };
        // It gives its daemon half a second to start and asks to be tried again where that was not enough.
        let load = || {
            let mut command = Command::new(&node);
            let load = command.arg(&cli).args(["load", file.to_str().unwrap()]);
            load.env("HOME", room.0.path()).current_dir(room.0.path()).output().unwrap()
        };
        let mut loaded = load();
        for _ in 0..8 {
            if loaded.status.success() {
                break;
            }
            end_daemon(&loaded);
            loaded = load();
        }
        said(&loaded);
        let threads: serde_json::Value = serde_json::from_str(&ask(&["thread", "list", "--json"])).unwrap();
        let threads = threads["threads"].as_array().unwrap();
        assert_eq!(threads.len(), 3, "one for each thread name: {threads:?}");
        let mut found = 0.0;
        for thread in threads {
            let handle = thread["threadHandle"].as_str().unwrap();
            let samples = ask(&["thread", "samples", "--json", "--include-idle", "--thread", handle]);
            let samples: serde_json::Value = serde_json::from_str(&samples).unwrap();
            found += samples["topFunctionsBySelf"]
                .as_array()
                .unwrap()
                .iter()
                .map(|function| function["selfSamples"].as_f64().unwrap() * factor)
                .sum::<f64>();
        }
        ask(&["stop"]);
        #[expect(clippy::cast_precision_loss, reason = "exact up to 104 days")]
        let total = total as f64;
        assert!((found - total).abs() < 1.0, "{kind}: {found} instead of {total}");
    }
}

/// What stands beside the file in speedscope's own page: opens it as a user would, turns to the table of functions, and
/// writes what each row says of its own time below, as soon as the page has laid the table out.
const READ_THE_TABLE: &str = "
    const bytes = Array.from(new TextEncoder().encode(text), byte => String.fromCharCode(byte)).join('');
    setTimeout(() => speedscope.loadFileFromBase64('x.speedscope.json', btoa(bytes)), 500);
    const look = setInterval(() => {
        const rows = [...document.querySelectorAll('tr')].map(row => [...row.querySelectorAll('td')]);
        const cells = rows.filter(row => row.length === 3);
        if (cells.length === 0) {
            const tab = [...document.querySelectorAll('div')].find(div => /^\\W*Sandwich$/.test(div.textContent));
            if (tab) tab.click();
            window.dispatchEvent(new Event('resize'));
            return;
        }
        clearInterval(look);
        const found = document.createElement('pre');
        found.id = 'found';
        found.textContent = cells.map(([, own]) => own.textContent.split(' ')[0]).join(' ');
        document.body.append(found);
    }, 500);";

/// A value as speedscope's table has it, in samples or milliseconds.
fn speedscope_value(text: &str) -> f64 {
    let number = |text: &str| text.replace(',', "").parse::<f64>().unwrap_or_else(|_| panic!("{text} is no number"));
    match (text.strip_suffix("ms"), text.strip_suffix("ns")) {
        (Some(ms), _) => number(ms),
        (_, Some(ns)) => number(ns) / 1e6,
        (None, None) => number(text),
    }
}

#[test]
fn speedscope_finds_the_total() {
    let (Some(chromium), Some(page)) = (on_path("chromium"), reader("speedscope/dist/release/index.html")) else {
        return;
    };
    // As many nanoseconds as it shows with two digits after the point.
    for (kind, scale, title) in [
        ("cpu", 1, "On-CPU time, stacks: 1007 samples, nothing lost"),
        ("offcpu", 1_000_000, "Off-CPU time, stacks: 1007.0 ms, nothing lost"),
    ] {
        let room = Room::new();
        let (file, total) = room.export(kind, "speedscope", scale);
        for entry in std::fs::read_dir(page.parent().unwrap()).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), room.path(&entry.file_name().to_string_lossy())).unwrap();
        }
        let html = std::fs::read_to_string(room.path("index.html")).unwrap();
        let text = serde_json::to_string(&std::fs::read_to_string(&file).unwrap()).unwrap().replace("</", "<\\/");
        let html = html
            .replace("</body>", &format!("<script>const text = {text};{READ_THE_TABLE}</script></body>"))
            .replace("<head>", "<head><script>location.hash = 'localProfilePath=none.js'</script>");
        std::fs::write(room.path("test.html"), html).unwrap();
        let mut command = Command::new(&chromium);
        command.args(["--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-component-update"]);
        command.args(["--disable-background-networking", "--disable-sync", "--use-angle=swiftshader"]);
        command.args(["--enable-unsafe-swiftshader", "--virtual-time-budget=30000", "--dump-dom"]);
        // High enough for every row: it makes only those that are seen.
        command.arg("--window-size=1200,1600");
        command.arg(format!("--user-data-dir={}", room.path("chromium").display()));
        command.arg(format!("file://{}", room.path("test.html").display()));
        let dom = said(&command.output().unwrap());
        assert!(dom.contains(&format!("<title>{title} - speedscope</title>")), "{dom}");
        let found = dom.split_once("<pre id=\"found\">").and_then(|(_, rest)| rest.split_once("</pre>"));
        let Some((found, _)) = found else { panic!("the table of functions did not come: {dom}") };
        let values: Vec<f64> = found.split(' ').map(speedscope_value).collect();
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let total = total as f64 / scale as f64;
        assert!((values.iter().sum::<f64>() - total).abs() < 0.01, "{kind}: {values:?} are not {total} together");
    }
}
