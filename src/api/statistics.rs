//! `/v1/webhooks/statistics`: attempts over time by what came of them, and how long they took.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::call::ApiCall;
use super::envelope::{Answer, Resource, time};
use super::error::{ApiError, Code, Fault, Words};
use super::openapi::schemas::PeriodName;
use crate::domain::id::EndpointId;
use crate::domain::statistics::{Latencies, Period, Step, chart};
use crate::domain::time::Timestamp;
use crate::store::Statistics;

/// Attempts of an account, or of one endpoint, counted over a period.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct StatisticsAttributes {
    /// How far back they reach.
    #[schema(value_type = PeriodName, inline)]
    pub period: Cow<'static, str>,
    /// The beginning of the first step.
    #[schema(format = DateTime)]
    pub from: String,
    /// Now: the last step is not over.
    #[schema(format = DateTime)]
    pub to: String,
    /// Length of a step, in seconds.
    pub step_seconds: u64,
    /// Attempts in all.
    pub attempts: u64,
    /// Those that were answered with 2xx.
    pub success: u64,
    /// Those that failed and are followed by another.
    pub retrying: u64,
    /// Those that failed for good.
    pub failed: u64,
    /// How long attempts took, in milliseconds, failed ones included: to within a third.
    #[schema(inline)]
    pub response_time_ms: Percentiles,
    /// Every step, the oldest first.
    #[schema(inline)]
    pub series: Vec<StepAttributes>,
}

/// Times within which so many of a hundred attempts were over; `null` where there were none.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct Percentiles {
    /// Half of them.
    #[schema(required)]
    pub p50: Option<u64>,
    /// 95 of 100.
    #[schema(required)]
    pub p95: Option<u64>,
    /// 99 of 100.
    #[schema(required)]
    pub p99: Option<u64>,
}

/// A step of the period.
#[derive(Serialize, Deserialize, ToSchema)]
pub struct StepAttributes {
    /// Its beginning.
    #[schema(format = DateTime)]
    pub at: String,
    /// Attempts that were answered with 2xx.
    pub success: u64,
    /// Attempts that failed and are followed by another.
    pub retrying: u64,
    /// Attempts that failed for good.
    pub failed: u64,
    /// The time within which half of them were over, in milliseconds; `null` where there were none.
    #[schema(required)]
    pub p50: Option<u64>,
    /// The time within which 95 of 100 were over.
    #[schema(required)]
    pub p95: Option<u64>,
}

/// `GET /v1/webhooks/statistics`
pub async fn read(call: ApiCall) -> Result<Answer, ApiError> {
    let pairs = call.query();
    let asked = |name: &str| pairs.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.trim());
    let mut faults = Vec::new();
    let mut wrong = |name| faults.push(Fault::of_parameter(Code::InvalidFilter, name).because(&allowed(name)));
    let period = match asked("period").filter(|name| !name.is_empty()) {
        None => Period::Day,
        Some(name) => Period::parse(name).unwrap_or_else(|| {
            wrong("period");
            Period::Day
        }),
    };
    let endpoint = asked("endpoint_id").filter(|id| !id.is_empty()).map(|id| EndpointId::parse(id).ok_or(()));
    if endpoint == Some(Err(())) {
        wrong("endpoint_id");
    }
    ApiError::check(faults)?;
    let now = call.api.clock.now();
    let endpoint = endpoint.and_then(Result::ok);
    let counts = call.api.store.attempt_counts(call.account()?, endpoint, period.slot(), period.begins(now)).await?;
    let (whole, steps) = chart(period, now, &counts);
    let account = call.account()?;
    let id = endpoint.map_or_else(|| account.to_string(), |id| id.to_string());
    let attributes = attributes(period, now, &whole, &steps);
    Ok(Answer::new(200, &Resource { r#type: "webhook_statistics".into(), id, attributes }))
}

/// What a parameter takes.
pub(super) fn allowed(name: &str) -> Words {
    match name {
        "period" => Words::new("period takes 1h, 24h or 7d", "period admite 1h, 24h o 7d"),
        _ => Words::new("endpoint_id takes a UUID", "endpoint_id admite un UUID"),
    }
}

fn attributes(period: Period, now: Timestamp, whole: &Step, steps: &[(Timestamp, Step)]) -> StatisticsAttributes {
    let share = |latencies: &Latencies, share| latencies.percentile(share);
    StatisticsAttributes {
        period: period.name().into(),
        from: time(period.begins(now)),
        to: time(now),
        step_seconds: period.step().as_secs(),
        attempts: whole.attempts(),
        success: whole.success,
        retrying: whole.retrying,
        failed: whole.failed,
        response_time_ms: Percentiles {
            p50: share(&whole.latencies, 0.5),
            p95: share(&whole.latencies, 0.95),
            p99: share(&whole.latencies, 0.99),
        },
        series: steps
            .iter()
            .map(|(at, step)| StepAttributes {
                at: time(*at),
                success: step.success,
                retrying: step.retrying,
                failed: step.failed,
                p50: share(&step.latencies, 0.5),
                p95: share(&step.latencies, 0.95),
            })
            .collect(),
    }
}
