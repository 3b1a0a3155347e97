//! One case for each failpoint, action and pass in the life of a pod.

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
    world::TestNode,
};

/// Most passes of one point that get a case.
const PASSES: u64 = 6;
/// How long after a life's last answer a point may still be reached.
const BEHIND: Duration = Duration::from_secs(10);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// A point that acts in a life.
#[derive(Clone, Copy, Debug)]
struct Event {
    point: &'static Point,
    action: Action,
    pass: u64,
}

/// The events of one life. The first may be there only so that the second is reached.
#[derive(Debug)]
struct Case(Vec<Event>);

impl Case {
    fn name(&self) -> String {
        let events =
            self.0.iter().map(|event| format!("{:?} at {} ({})", event.action, event.point.name, event.pass));
        events.collect::<Vec<_>>().join(", then ")
    }
}

/// Runs the cases of all points. A case whose point is never reached fails.
pub(crate) async fn run(world: &mut TestNode, arguments: &Arguments, report: &mut Report) {
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

/// Event by which a life reaches a point that no undisturbed life passes.
fn lead_to(point: &Point) -> Option<Event> {
    let event = |point, action| Some(Event { point, action, pass: 1 });
    match point.process {
        // Not while a container is started: the failure may be recorded before the dead shim is cleaned up.
        Process::Command => event(&EXEC_SPAWNED, Kill),
        _ if point.name.starts_with("undo.") => event(&POD_ATTACHED, Error),
        _ => event(&POD_ATTACHED, Kill),
    }
}

async fn one(world: &mut TestNode, case: &Case, report: &mut Report) -> Result<(), Failure> {
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

/// Events that have not happened within [`BEHIND`], the time that background work gets.
async fn idle<'a>(world: &TestNode, case: &'a Case) -> Vec<&'a Event> {
    let begun = Instant::now();
    loop {
        let idle: Vec<_> = case.0.iter().filter(|event| !world.failpoints.has_fired(event.point)).collect();
        if idle.is_empty() || begun.elapsed() > BEHIND {
            return idle;
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Fails if an answered error does not name its cause, which is the injected error.
fn clear(case: &Case, outcome: &Outcome) -> Result<(), Failure> {
    if case.0.iter().any(|event| event.action == Kill) {
        return Ok(());
    }
    match outcome.errors.iter().find(|error| !error.contains("injected at")) {
        Some(unclear) => Err(format!("answered an error that does not tell the cause: {unclear}")),
        None => Ok(()),
    }
}

/// Checks after every life: nothing is left behind, the bystander is well, `berthd check` finds nothing new.
pub(crate) async fn after(world: &mut TestNode, report: &mut Report) -> Result<(), Failure> {
    let left = world.left_behind().await;
    if !left.is_empty() {
        report.leak();
        world.forgive();
        return Err(format!("left behind: {left:#?}"));
    }
    world.bystander_is_well().await?;
    world.check()
}
