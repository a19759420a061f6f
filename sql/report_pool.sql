-- Size of the unseen pool.
SELECT count(*) AS examples FROM dolly_dataset
