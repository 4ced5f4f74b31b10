//! A chat in a few lines: `cargo run --release --example chat -- model.gguf "Name three colors."`

use std::io::Write;
use wgpu_llm::{ChatOptions, Loader};

fn main() -> wgpu_llm::Result<()> {
    let mut args = std::env::args().skip(1);
    let path = args.next().unwrap_or_else(|| "model.gguf".into());
    let model = Loader::new(path).context(1024).load()?;
    let mut chat = model.chat(ChatOptions { limit: 32, ..ChatOptions::default() })?;
    for question in args {
        for piece in chat.ask(question)? {
            print!("{}", piece?.content);
            let _ = std::io::stdout().flush();
        }
        println!();
    }
    Ok(())
}
