//! Every failpoint, killed and failed at, in the life of a pod.

use std::time::{Duration, Instant};

use berth_failpoint::{
    POINTS, Point, Process,
    points::{EXEC_SPAWNED, POD_ATTACHED},
};
use tokio::time::sleep;

use crate::{
    Arguments, Failure,
    failpoints::Action::{self, Error, Kill},
    life::{Life, Outcome},
    report::Report,
    world::World,
};

/// At how many of its passes in one life a point acts at most: one life per pass.
const PASSES: u64 = 6;
/// How long a point may be reached later than the last call is answered.
const BEHIND: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

/// Something that happens in a life.
#[derive(Clone, Copy, Debug)]
struct Event {
    point: &'static Point,
    action: Action,
    pass: u64,
}

/// A life with its events: the first may have to happen for the other to be reached.
#[derive(Debug)]
struct Case(Vec<Event>);

impl Case {
    fn name(&self) -> String {
        let events =
            self.0.iter().map(|event| format!("{:?} at {} ({})", event.action, event.point.name, event.pass));
        events.collect::<Vec<_>>().join(", then ")
    }
}

/// Runs the cases that the list of points makes; one whose point is never passed fails.
pub(crate) async fn run(world: &mut World, arguments: &Arguments, report: &mut Report) {
    world.failpoints.disarm();
    let (_, lived) = Life::new(world, "rehearsal", None).live().await;
    report.case("a life without any event", lived);
    let passes: Vec<u64> = POINTS.iter().map(|point| world.failpoints.passes(point)).collect();
    println!(
        "{} points, of which an undisturbed life passes {}",
        POINTS.len(),
        passes.iter().filter(|n| **n > 0).count()
    );
    let wanted = |point: &Point| arguments.only.as_ref().is_none_or(|only| point.name.contains(only));
    let most = if arguments.sample { 1 } else { PASSES };
    for (point, passes) in POINTS.iter().zip(passes).filter(|(point, _)| wanted(point)) {
        for case in cases(point, passes.min(most)) {
            let name = case.name();
            println!("{name}");
            let result = one(world, &case, report).await;
            report.case(&name, result);
        }
    }
}

fn cases(point: &'static Point, passes: u64) -> Vec<Case> {
    let actions = if point.fails { vec![Kill, Error] } else { vec![Kill] };
    let all = actions.into_iter().flat_map(|action| (1..=passes.max(1)).map(move |pass| (action, pass)));
    all.map(|(action, pass)| {
        let lead = if passes == 0 { lead_to(point) } else { None };
        Case(lead.into_iter().chain([Event { point, action, pass }]).collect())
    })
    .collect()
}

/// What must happen for a point to be reached that no undisturbed life passes.
fn lead_to(point: &Point) -> Option<Event> {
    let event = |point, action| Some(Event { point, action, pass: 1 });
    match point.process {
        // In the start of a container its failure may be on record before anyone cleans up after the shim.
        Process::Command => event(&EXEC_SPAWNED, Kill),
        _ if point.name.starts_with("undo.") => event(&POD_ATTACHED, Error),
        _ => event(&POD_ATTACHED, Kill),
    }
}

async fn one(world: &mut World, case: &Case, report: &mut Report) -> Result<(), Failure> {
    world.failpoints.disarm();
    for event in &case.0 {
        world.failpoints.arm(event.point, event.action, event.pass);
    }
    let (outcome, lived) = Life::new(world, "life", None).live().await;
    let idle = idle(world, case).await;
    report.count(&outcome);
    let acted = case.0.iter().filter(|event| world.failpoints.has_fired(event.point));
    report.points.extend(acted.map(|event| event.point.name));
    world.failpoints.disarm();
    let healed = if lived.is_err() { world.clear().await } else { Ok(()) };
    lived.and(healed)?;
    if !idle.is_empty() {
        return Err(format!("never reached: {idle:?}"));
    }
    clear(case, &outcome)?;
    after(world, report).await
}

/// What has not happened, once what goes on behind the calls has had its time.
async fn idle<'a>(world: &World, case: &'a Case) -> Vec<&'a Event> {
    let begun = Instant::now();
    loop {
        let idle: Vec<_> = case.0.iter().filter(|event| !world.failpoints.has_fired(event.point)).collect();
        if idle.is_empty() || begun.elapsed() > BEHIND {
            return idle;
        }
        sleep(PAUSE).await;
    }
}

/// Errors say where they come from: those that are injected name the point.
fn clear(case: &Case, outcome: &Outcome) -> Result<(), Failure> {
    if case.0.iter().any(|event| event.action == Kill) {
        return Ok(());
    }
    match outcome.errors.iter().find(|error| !error.contains("injected at")) {
        Some(unclear) => Err(format!("answered an error that does not tell the cause: {unclear}")),
        None => Ok(()),
    }
}

/// What must hold after every life.
pub(crate) async fn after(world: &mut World, report: &mut Report) -> Result<(), Failure> {
    let left = world.left_behind().await;
    if !left.is_empty() {
        report.leak();
        world.forgive();
        return Err(format!("left behind: {left:#?}"));
    }
    world.bystander_is_well().await?;
    world.check()
}
