//! Compiling everything: a child process for each family, since a driver asks its environment once, and several of them where there
//! are more cores.

use crate::assembly;
use crate::count::Code;
use crate::device::{Compiled, Device};
use crate::family::{Family, environment};
use crate::list;
use crate::peer;
use crate::record::{Entry, Record, Row};
use crate::spirv::{Module, module};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is to be looked at.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Words that names must have, all of them.
    pub filter: Vec<String>,
    /// The folder of others' kernels, which are then looked at in place of our own.
    pub peer: Option<PathBuf>,
    /// The folder for assembly.
    pub assembly: Option<PathBuf>,
    /// Whether loops are described.
    pub loops: bool,
}

impl Wanted {
    /// Whether a kernel of this name is to be looked at.
    pub fn takes(&self, name: &str) -> bool {
        self.filter.iter().all(|word| name.contains(word.as_str()))
    }
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// The figures.
    pub record: Record,
    /// Kernels' loops, by family and kernel.
    pub loops: Vec<(String, Vec<String>)>,
    /// Kernels that were not compiled, or whose figures cannot be right.
    pub problems: Vec<String>,
}

/// A kernel with its place in the list.
struct Job {
    group: String,
    name: String,
    /// Jobs of the same key are compiled once.
    key: String,
    module: Box<dyn Fn() -> Result<Module, String>>,
}

fn jobs(device: &Device, wanted: &Wanted) -> Result<Vec<Job>, String> {
    let mut all: Vec<Job> = match &wanted.peer {
        Some(folder) => {
            let job = |(name, module): (String, Module)| Job {
                group: "Others".into(),
                key: name.clone(),
                name,
                module: Box::new(move || Ok(module.clone())),
            };
            peer::modules(folder)?.into_iter().map(job).collect()
        }
        None => {
            let job = |item: list::Item| {
                let (info, pass) = (device.info.clone(), item.pass);
                let module = move || module(&pass, &info);
                Job { group: item.group.into(), name: item.name, key: item.text, module: Box::new(module) }
            };
            list::list(&device.info.caps)?.into_iter().map(job).collect()
        }
    };
    all.retain(|job| wanted.takes(&job.name));
    Ok(all)
}

/// What a child does: compiles part `part` of `parts` of all kernels on the device that the environment makes, and writes a line for
/// each to `out`: first its name, then what was found.
pub fn child(wanted: &Wanted, family: Family, [part, parts]: [usize; 2], out: &mut dyn Write) -> Result<(), String> {
    let device = Device::open()?;
    let mut tell =
        |line: Value| writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| format!("nobody listens: {e}"));
    tell(json!({ "device": device.info.name, "driver": device.info.driver }))?;
    let jobs = jobs(&device, wanted)?;
    let mut known: HashMap<&str, Value> = HashMap::new();
    for (at, job) in jobs.iter().enumerate() {
        // Kernels of the same text go to the same child.
        let first = jobs.iter().position(|other| other.key == job.key).unwrap_or(at);
        if first % parts != part {
            continue;
        }
        tell(json!({ "begun": job.name }))?;
        if !known.contains_key(job.key.as_str()) {
            known.insert(&job.key, look(&device, job, wanted, family));
        }
        let mut line = known[job.key.as_str()].clone();
        line["at"] = at.into();
        line["group"] = job.group.as_str().into();
        line["name"] = job.name.as_str().into();
        tell(line)?;
    }
    Ok(())
}

fn look(device: &Device, job: &Job, wanted: &Wanted, family: Family) -> Value {
    let all = || -> Result<Value, String> {
        let module = (job.module)()?;
        let compiled = device.compile(&module)?;
        if let Some(folder) = &wanted.assembly {
            let name: String = job.name.chars().map(|c| if c.is_alphanumeric() { c } else { '_' }).collect();
            let path = folder.join(format!("{name}.{}.s", family.name));
            std::fs::write(&path, &compiled.assembly).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        let code = Code::new(assembly::blocks(&compiled.assembly), family.stores_wait);
        let row = row(&compiled, &code, module.macs, family)?;
        let loops = if wanted.loops { code.describe() } else { Vec::new() };
        Ok(json!({ "row": row.values(), "loops": loops, "problem": problem(&row, module.macs) }))
    };
    all().unwrap_or_else(|e| json!({ "error": e }))
}

/// The figures of a kernel: the driver's, and those counted.
fn row(compiled: &Compiled, code: &Code, macs: Option<u32>, family: Family) -> Result<Row, String> {
    let figure = |name: &str| {
        let value = compiled.statistic(name).map(|v| v as f64);
        value.ok_or_else(|| format!("the driver tells nothing of {name}"))
    };
    if compiled.assembly.is_empty() {
        return Err("the driver shows no assembly".into());
    }
    // RADV counts subgroups of RDNA as if they had 32 threads.
    let waves = figure("Subgroups per SIMD")? * f64::from(family.wave) / f64::from(compiled.subgroup);
    Ok(Row {
        subgroup: compiled.subgroup.into(),
        vgprs: figure("VGPRs")?,
        sgprs: figure("SGPRs")?,
        waves,
        spills: figure("Spilled VGPRs")? + figure("Spilled SGPRs")?,
        scratch: figure("Scratch size")?,
        lds: figure("LDS size")?,
        ..code.figures(macs)
    })
}

/// What cannot be right: a step that has fewer multiplications than the shader says it computes.
fn problem(row: &Row, macs: Option<u32>) -> Option<String> {
    let said = macs?;
    match row {
        _ if row.macs == 0.0 => Some("the shader has MACS, but there is no loop".into()),
        // A vector instruction does two multiplications and additions at most, a dot product four.
        _ if row.matrix == 0.0 && f64::from(said) > 2.0 * row.vector + 2.0 * row.dot => Some(format!(
            "MACS says {said} multiplications and additions a step, but the main loop has {} vector instructions",
            row.vector
        )),
        _ => None,
    }
}

/// What a child has told.
#[derive(Default)]
struct Told {
    driver: String,
    rows: Vec<(usize, Value)>,
    begun: Option<String>,
}

/// Compiles everything for `families` by RADV of `icd`; `exe` is this program.
pub fn measure(exe: &Path, icd: &Path, families: &[Family], wanted: &Wanted) -> Result<Found, String> {
    if let Some(folder) = &wanted.assembly {
        std::fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let parts = (cores / families.len().max(1)).clamp(1, 8);
    let told: Vec<Result<Told, String>> = std::thread::scope(|scope| {
        let run = |family: Family, part| scope.spawn(move || listen(exe, icd, family, [part, parts], wanted));
        let all: Vec<_> = families.iter().flat_map(|f| (0..parts).map(move |part| (*f, part))).collect();
        let all: Vec<_> = all.into_iter().map(|(f, part)| run(f, part)).collect();
        all.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a thread failed".into()))).collect()
    });
    let mut found = Found::default();
    let mut told = told.into_iter();
    for family in families {
        let mut rows = Vec::new();
        for told in told.by_ref().take(parts) {
            let told = told?;
            found.record.driver = told.driver;
            rows.extend(told.rows);
        }
        rows.sort_by_key(|(at, _)| *at);
        for (_, line) in rows {
            collect(&mut found, family, &line);
        }
    }
    Ok(found)
}

fn collect(found: &mut Found, family: &Family, line: &Value) {
    let text = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let name = text("name");
    let title = format!("{name} ({})", family.name);
    for key in ["error", "problem"] {
        if let Some(what) = line[key].as_str() {
            found.problems.push(format!("{title}: {what}"));
        }
    }
    let Some(values) = line["row"].as_array() else { return };
    let row = Row::read(|column| values[Row::COLUMNS.iter().position(|c| *c == column)?].as_f64());
    let lines = line["loops"].as_array().into_iter().flatten().filter_map(|l| l.as_str().map(str::to_owned));
    found.loops.push((title, lines.collect()));
    found.record.entries.push(Entry { family: family.name.into(), group: text("group"), name, row });
}

/// Runs a child and reads what it tells. Of a family's names in Mesa the first that this one knows is taken.
fn listen(exe: &Path, icd: &Path, family: Family, part: [usize; 2], wanted: &Wanted) -> Result<Told, String> {
    let mut failures = Vec::new();
    for mesa in family.mesa {
        let mut told = Told::default();
        match listen_to(exe, icd, (family, mesa), part, wanted, &mut told) {
            Ok(()) => return Ok(told),
            // The device was opened: another name would not help.
            Err(e) if !told.driver.is_empty() => {
                let at = told.begun.map_or(String::new(), |name| format!(" while it compiled {name}"));
                return Err(format!("{} ({mesa}): the compiler stopped{at}: {e}", family.name));
            }
            Err(e) => failures.push(format!("{mesa}: {e}")),
        }
    }
    Err(format!("{} is no card that RADV of {} can be: {}", family.name, icd.display(), failures.join("; ")))
}

fn listen_to(
    exe: &Path,
    icd: &Path,
    (family, mesa): (Family, &str),
    [part, parts]: [usize; 2],
    wanted: &Wanted,
    told: &mut Told,
) -> Result<(), String> {
    let mut command = Command::new(exe);
    environment(&mut command, icd, mesa);
    command.args(["--family", family.name, "--child", &format!("{part}/{parts}")]);
    for word in &wanted.filter {
        command.args(["--filter", word]);
    }
    for (flag, folder) in [("--peer", &wanted.peer), ("--asm", &wanted.assembly)] {
        if let Some(folder) = folder {
            command.arg(flag).arg(folder);
        }
    }
    if wanted.loops {
        command.arg("--loops");
    }
    let start = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = start.map_err(|e| format!("{} could not start: {e}", exe.display()))?;
    let stderr = child.stderr.take().ok_or("no standard error")?;
    let complaints = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
    for line in BufReader::new(child.stdout.take().ok_or("no standard output")?).lines() {
        let line = line.map_err(|e| e.to_string())?;
        let Ok(mut line) = serde_json::from_str::<Value>(&line) else { continue };
        match (line["driver"].as_str(), line["begun"].as_str(), line["at"].as_u64()) {
            (Some(driver), ..) => told.driver = driver.to_owned(),
            (_, Some(name), _) => told.begun = Some(name.to_owned()),
            (.., Some(at)) => {
                told.begun = None;
                told.rows.push((at as usize, line.take()));
            }
            _ => {}
        }
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    let complaints = complaints.join().unwrap_or_default();
    if status.success() { Ok(()) } else { Err(format!("{status}: {}", complaints.trim())) }
}
