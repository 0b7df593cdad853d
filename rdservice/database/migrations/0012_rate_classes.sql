-- RD Station limits the list of segmentations apart, and what runs in the background is spread evenly.

ALTER TABLE rdstation_rate_budgets
    -- Of the calls, those that list segmentations, by second since 1970.
    ADD COLUMN segmentation_calls jsonb NOT NULL DEFAULT '{}',
    -- When the next call in the background would be made at an even pace.
    ADD COLUMN background_due timestamptz;
