//! The program `wgpu-llm`: all of it is in the library.

fn main() -> std::process::ExitCode {
    wgpu_llm::app::main()
}
