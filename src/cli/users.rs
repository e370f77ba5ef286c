//! `aldaba users`: the people who sign in to the dashboard.

use std::io::Read as _;

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::admin::{LISTED, account_id, tell_rest};
use super::args::{OptionalOwnerArgs, Output, OwnerArgs, SettingArgs, print_line};
use crate::api::hash_for_address;
use crate::clock::SystemRandom;
use crate::domain::user::{Email, MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, Role, User};
use crate::store::{Memberships, NewUser, PasswordHash, Store, StoreError, Users, WithToken};

#[derive(Subcommand)]
pub(super) enum UsersCommand {
    /// Make a user and print the address at which they set their password, this once
    Create {
        /// Their e-mail address
        email: String,
        #[command(flatten)]
        owner: OwnerArgs,
        /// owner, developer or viewer
        #[arg(long, value_name = "ROLE", default_value = "owner")]
        role: String,
        /// Read the password from standard input instead; then there is no invitation
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        output: Output,
    },
    /// List the users of an account, or the operators
    List {
        #[command(flatten)]
        owner: OwnerArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Turn off the second factor of somebody who has lost it; they are told at their next sign-in
    ResetTwoFactor {
        /// Their e-mail address
        email: String,
        #[command(flatten)]
        owner: OptionalOwnerArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Make a new invitation, for somebody who has lost their password
    Invite {
        /// Their e-mail address
        email: String,
        #[command(flatten)]
        owner: OptionalOwnerArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Delete a user and end their sessions
    Delete {
        /// Their e-mail address
        email: String,
        #[command(flatten)]
        owner: OptionalOwnerArgs,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn run(settings: &SettingArgs, command: UsersCommand) -> anyhow::Result<()> {
    let config = settings.load([])?;
    let base = config.public_url.unwrap_or_else(|| format!("http://{}", config.listen));
    let store = settings.open().await?;
    match command {
        UsersCommand::Create { email, owner, role, password_stdin, output } => {
            let email = address(&email)?;
            let account = owner.account.as_deref().map(account_id).transpose()?;
            let role = role_of(&role, &owner)?;
            let password = match password_stdin.then(read_password).transpose()? {
                Some(password) => Some(hashed(&store, &email, &password).await?),
                None => None,
            };
            let new = NewUser { account, email, role, password };
            let made = store.create_user(new, None).await.map_err(|error| match error {
                StoreError::NotFound => anyhow::anyhow!("no such account; see `aldaba accounts list`"),
                StoreError::Exists => anyhow::anyhow!("the account has a user with this address already"),
                other => other.into(),
            })?;
            let (json, text) = shown(&made, &base);
            output.print(&json, &text)?;
        }
        UsersCommand::List { owner, output } => {
            let account = owner.account.as_deref().map(account_id).transpose()?;
            let users = store.users(account, LISTED).await.context("no such account; see `aldaba accounts list`")?;
            if output.json {
                print_line(users.items.iter().map(user_json).collect::<Value>())?;
            } else {
                for user in &users.items {
                    let state = if user.joined { "active" } else { "invited" };
                    print_line(format_args!("{}  {:9}  {state:7}  {}", user.id, user.role.name(), user.email))?;
                }
                tell_rest(users.items.len(), users.total);
            }
        }
        UsersCommand::Invite { email, owner, output } => {
            let user = find(&store, &email, &owner).await?;
            let made = store.invite_user(user.account.map(|(id, _)| id), user.id, None).await?;
            let (json, text) = shown(&made, &base);
            output.print(&json, &text)?;
        }
        UsersCommand::ResetTwoFactor { email, owner, output } => {
            let user = find(&store, &email, &owner).await?;
            let reset = store.reset_second_factor(user.account.map(|(id, _)| id), user.id).await;
            let reset = reset.map_err(|error| match error {
                StoreError::NotFound => anyhow::anyhow!("{} has no second factor", user.email),
                other => other.into(),
            })?;
            output.print(&user_json(&reset), &format!("turned off the second factor of {}", reset.email))?;
        }
        UsersCommand::Delete { email, owner, output } => {
            let user = find(&store, &email, &owner).await?;
            store.delete_user(user.account.map(|(id, _)| id), user.id).await.map_err(|error| match error {
                StoreError::LastOwner => {
                    anyhow::anyhow!("this is the last {}; make another one first", user.role.name())
                }
                other => other.into(),
            })?;
            output.print(&json!({ "deleted": user.id.to_string() }), &format!("deleted {}", user.email))?;
        }
    }
    Ok(())
}

/// A user with the address of their invitation, or without where they need none.
fn shown(made: &WithToken<User>, base: &str) -> (Value, String) {
    let mut json = user_json(&made.resource);
    let url = made.token.as_ref().map(|token| format!("{base}/join/{}", token.reveal()));
    let text = url.clone().unwrap_or_else(|| made.resource.id.to_string());
    json["invitation_url"] = url.into();
    (json, text)
}

fn user_json(user: &User) -> Value {
    json!({
        "id": user.id.to_string(),
        "account_id": user.account.map(|(id, _)| id.to_string()),
        "email": user.email.as_str(),
        "role": user.role.name(),
        "status": if user.joined { "active" } else { "invited" },
        "two_factor": user.two_factor,
        "last_sign_in_at": user.last_sign_in_at.map(|at| at.to_string()),
        "created_at": user.created_at.to_string(),
    })
}

/// The user with this address; where several accounts have one, that of the account which is named.
async fn find(store: &Store, email: &str, owner: &OptionalOwnerArgs) -> anyhow::Result<User> {
    let named = owner.account.as_deref().map(account_id).transpose()?;
    let mut found = store.users_with(address(email)?).await?;
    if named.is_some() || owner.operator {
        found.retain(|user| user.account.map(|(id, _)| id) == named);
    }
    if found.len() > 1 {
        let owners = found.iter().map(|user| match user.account {
            Some((id, _)) => format!("--account {id}"),
            None => "--operator".to_owned(),
        });
        bail!(
            "several accounts have a user with this address: say which by one of {}",
            owners.collect::<Vec<_>>().join(", ")
        );
    }
    found.pop().context("no user has this address there; see `aldaba users list`")
}

fn address(text: &str) -> anyhow::Result<Email> {
    Email::parse(text).with_context(|| format!("{text} is no e-mail address"))
}

fn role_of(name: &str, owner: &OwnerArgs) -> anyhow::Result<Role> {
    if owner.operator {
        return Ok(Role::Operator);
    }
    let role = Role::parse(name).filter(|role| Role::OF_ACCOUNT.contains(role));
    role.with_context(|| format!("unknown role {name}; allowed: owner, developer, viewer"))
}

fn read_password() -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    std::io::stdin().take(4_096).read_to_string(&mut text).context("cannot read standard input")?;
    let password = Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned());
    if !(MIN_PASSWORD_CHARS..=MAX_PASSWORD_CHARS).contains(&password.chars().count()) {
        bail!("a password has {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters");
    }
    Ok(password)
}

async fn hashed(store: &Store, email: &Email, password: &str) -> anyhow::Result<PasswordHash> {
    let hash = hash_for_address(store, email, password, &SystemRandom::default()).await?;
    hash.context("the password cannot be hashed")
}
