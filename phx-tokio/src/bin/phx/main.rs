//! `phx`: Phoenix Channels on the command line.

mod args;
mod connections;
mod demo;
mod duration;
mod exit;
mod generate;
mod input;
mod limit;
mod listen;
mod log;
mod output;
mod pair;
mod progress;
mod push;
mod record;
mod replay;
mod run;
mod serve;
mod signals;
mod source;
mod stage;
mod style;
mod target;
mod writer;

use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Command};
use crate::exit::Failed;

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            let code = Failed::Local(format!("the runtime could not be started: {error}")).report();
            log::flush();
            return code;
        }
    };
    let work = async {
        match command {
            Command::Demo => demo::run().await,
            Command::Serve(serve) => serve::run(serve).await,
            Command::Run { file, patterns, prefix, fixed, grace, metrics, metrics_every } => {
                let metrics_every = metrics_every.map(Duration::from_secs);
                let run = run::Run { file, patterns, prefix, fixed, grace, metrics, metrics_every };
                run::run(run).await
            }
            Command::Check { file: Some(file), .. } => connections::check(&file),
            Command::Check { file: None, .. } => generate::schema(),
            Command::Completions { shell } => generate::completions(shell),
            Command::Man { command } => generate::man(command.as_deref()),
            Command::Listen(listen) => listen::run(*listen).await,
            Command::Replay { file } => replay::run(&file),
            Command::Push(push) => push::push(*push).await,
            Command::Cast(push) => push::cast(*push).await,
        }
    };
    // A panic must end the process, so that a supervisor restarts it.
    let done = catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)));
    // Reading standard input cannot be cancelled, so the shutdown must not wait for it.
    runtime.shutdown_background();
    let code = match done {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failed)) => failed.report(),
        Err(panicked) => {
            log::flush();
            resume_unwind(panicked)
        }
    };
    log::flush();
    code
}
