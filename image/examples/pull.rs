//! Pulls an image into a store and prints its cost: `cargo run --release -p berth-image --example pull -- IMAGE ROOT`.
//! A registry on 127.0.0.1 is reached over plain HTTP.

use std::time::Instant;

use berth_image::{Config, Images};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(image), Some(root)) = (arguments.next(), arguments.next()) else {
        return Err("usage: pull IMAGE ROOT".into());
    };
    let images = Images::open(Config::new(root)).await?;
    let started = Instant::now();
    let pulled = images.pull(&image.parse()?, None).await?;
    let took = started.elapsed();
    let (usage, cpu) = (images.usage(), cpu_seconds());
    let mb = |bytes: u64| bytes as f64 / 1e6;
    println!("{} pulled in {:.2} s with {cpu:.2} s of cpu", pulled.id, took.as_secs_f64());
    println!(
        "{:.0} MB compressed, {:.0} MB in {} files unpacked: {:.0} MB/s",
        mb(pulled.size),
        mb(usage.bytes),
        usage.inodes,
        mb(usage.bytes) / took.as_secs_f64()
    );
    Ok(())
}

/// Returns the CPU seconds of this process, in user and kernel mode.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<f64> = stat.split(' ').skip(13).take(2).filter_map(|field| field.parse().ok()).collect();
    fields.iter().sum::<f64>() / 100.0
}
