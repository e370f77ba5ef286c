-- Previews of filters under way, one for an account: until when one that was not ended counts, by the database's clock.
CREATE TABLE filter_previews (
    account uuid PRIMARY KEY,
    until bigint NOT NULL
);
