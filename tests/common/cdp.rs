//! A headless Chromium under control: the DevTools protocol over a pipe, so that neither a port nor a WebSocket is needed.
// Each test file uses a part of this.
#![allow(dead_code)]

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Patience with one step of a page: loading a model takes a software GPU a minute, and the machine may have other work.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// A browser with one page.
pub struct Browser {
    child: Child,
    input: ChildStdin,
    output: Receiver<Value>,
    next: u64,
    /// The page's session, and its name as a tab.
    page: String,
    tab: String,
    /// The session of its newest worker.
    worker: String,
    /// A script that workers run before their own.
    pub in_workers: String,
    /// Addresses asked for by the page and its workers, in order.
    pub requests: Vec<String>,
    /// What was written to the console, by the page and its workers.
    pub console: Vec<String>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts `program` with WebGPU on SwiftShader, unless `gpu` is false.
    pub fn start(program: &Path, gpu: bool) -> Browser {
        let profile = tempfile::tempdir().expect("a folder");
        // The shell gives the browser its pipe: it reads 3 and writes 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"]).arg(program);
        command.args(["--headless", "--no-sandbox", "--remote-debugging-pipe", "--no-first-run", "--hide-scrollbars"]);
        if gpu {
            command.args(["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader", "--enable-features=Vulkan"]);
        } else {
            command.args([
                "--disable-features=WebGPU,WebGPUService",
                "--disable-gpu",
                "--disable-blink-features=WebGPU",
            ]);
        }
        command.args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-quic",
        ]);
        command.args(["--disable-dev-shm-usage", "--window-size=1100,800"]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the browser starts");
        let (sender, output) = channel();
        let mut reader = BufReader::new(child.stdout.take().expect("piped"));
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while reader.read_until(0, &mut message).is_ok_and(|n| n > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let input = child.stdin.take().expect("piped");
        let (requests, console, (page, tab, worker, in_workers)) = Default::default();
        let mut browser = Browser {
            child,
            input,
            output,
            next: 0,
            page,
            tab,
            worker,
            in_workers,
            requests,
            console,
            _profile: profile,
        };
        browser.take_tab();
        browser
    }

    /// Opens a new tab; from now on its page is meant.
    fn take_tab(&mut self) {
        self.tab = self.new_tab();
        let of_tab = json!({"targetId": self.tab, "flatten": true});
        let attached = self.call("", "Target.attachToTarget", of_tab);
        self.page = attached["sessionId"].as_str().expect("a session").to_owned();
        self.watch(&self.page.clone());
        self.command("Page.enable", json!({}));
    }

    /// Closes the tab, whatever its page is doing, and opens another.
    pub fn close_tab(&mut self) {
        let old = std::mem::take(&mut self.tab);
        self.take_tab();
        self.call("", "Target.closeTarget", json!({"targetId": old}));
    }

    fn new_tab(&mut self) -> String {
        let target = self.call("", "Target.createTarget", json!({"url": "about:blank"}));
        target["targetId"].as_str().expect("a name").to_owned()
    }

    /// Hears of what a session asks for, says, and starts.
    fn watch(&mut self, session: &str) {
        self.send(session, "Network.enable", json!({}));
        self.send(session, "Runtime.enable", json!({}));
        let attach = json!({"autoAttach": true, "waitForDebuggerOnStart": true, "flatten": true});
        self.send(session, "Target.setAutoAttach", attach);
        self.send(session, "Runtime.runIfWaitingForDebugger", json!({}));
    }

    fn send(&mut self, session: &str, method: &str, params: Value) -> u64 {
        self.next += 1;
        let mut message = json!({"id": self.next, "method": method, "params": params});
        if !session.is_empty() {
            message["sessionId"] = session.into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.write_all(&bytes).expect("the browser runs");
        self.next
    }

    fn call(&mut self, session: &str, method: &str, params: Value) -> Value {
        let id = self.send(session, method, params);
        let begin = Instant::now();
        loop {
            let message = match self.output.recv_timeout(Duration::from_millis(500)) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) if begin.elapsed() < PATIENCE => continue,
                Err(e) => panic!("{method}: no answer from the browser: {e}\n{}", self.console.join("\n")),
            };
            if message["id"].as_u64() == Some(id) {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.hear(&message);
        }
    }

    fn hear(&mut self, message: &Value) {
        let params = &message["params"];
        match message["method"].as_str().unwrap_or_default() {
            "Target.attachedToTarget" => {
                let session = params["sessionId"].as_str().unwrap_or_default().to_owned();
                if params["targetInfo"]["type"] == "worker" {
                    // It waits for the debugger: this comes first.
                    self.send(&session, "Runtime.evaluate", json!({"expression": self.in_workers}));
                    self.worker = session.clone();
                }
                self.watch(&session);
            }
            "Network.requestWillBeSent" => {
                self.requests.push(params["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
            "Runtime.consoleAPICalled" => self.console.push(params["args"].to_string()),
            "Runtime.exceptionThrown" => self.console.push(params["exceptionDetails"].to_string()),
            _ => {}
        }
    }

    /// A command of the protocol, to the page.
    pub fn command(&mut self, method: &str, params: Value) -> Value {
        self.call(&self.page.clone(), method, params)
    }

    /// Goes to an address.
    pub fn open(&mut self, url: &str) {
        self.command("Page.navigate", json!({"url": url}));
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'");
    }

    /// The value of an expression, awaited where it is a promise. Panics if it throws.
    pub fn value(&mut self, expression: &str) -> Value {
        self.evaluate(&self.page.clone(), expression)
    }

    /// As [`value`](Self::value), in the page's worker.
    pub fn in_worker(&mut self, expression: &str) -> Value {
        self.evaluate(&self.worker.clone(), expression)
    }

    fn evaluate(&mut self, session: &str, expression: &str) -> Value {
        let params =
            json!({"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true});
        let result = self.call(session, "Runtime.evaluate", params);
        let thrown = &result["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}\n{}", self.console.join("\n"));
        result["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) {
        let begin = Instant::now();
        while self.value(expression) != true {
            let notice = "document.body?.innerText.slice(0, 2000)";
            if begin.elapsed() > PATIENCE {
                panic!("never: {expression}\n{}\n{}", self.value(notice), self.console.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Chooses files from the disk, as a person does in the dialog of the input that `selector` finds.
    pub fn choose(&mut self, selector: &str, files: &[&Path]) {
        let found =
            self.command("Runtime.evaluate", json!({"expression": format!("document.querySelector('{selector}')")}));
        self.command("DOM.setFileInputFiles", json!({"files": files, "objectId": found["result"]["objectId"]}));
    }

    /// Puts another tab before the page's, or the page's before all others.
    pub fn hide(&mut self, hidden: bool) {
        let front = if hidden { self.new_tab() } else { self.tab.clone() };
        self.call("", "Target.activateTarget", json!({"targetId": front}));
        self.until(&format!("document.visibilityState === '{}'", if hidden { "hidden" } else { "visible" }));
    }

    /// The width of the screen in pixels, and its colours: `light` or `dark`.
    pub fn screen(&mut self, width: u32, height: u32, colours: &str) {
        let mobile = width < 600;
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile});
        self.command("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{"name": "prefers-color-scheme", "value": colours}]);
        self.command("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// What is seen, as PNG. Kept in the folder that `WGPU_LLM_SCREENSHOTS` names, where it names one.
    pub fn screenshot(&mut self, name: &str) -> Vec<u8> {
        use base64::Engine;
        let shot = self.command("Page.captureScreenshot", json!({"format": "png"}));
        let text = shot["data"].as_str().expect("a picture");
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
        if let Some(folder) = std::env::var_os("WGPU_LLM_SCREENSHOTS") {
            std::fs::write(Path::new(&folder).join(format!("{name}.png")), &bytes).expect("written");
        }
        bytes
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
