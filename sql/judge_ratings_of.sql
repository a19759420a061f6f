-- Ratings given before under any of the keys in the table wanted (judge, prompt, and the texts).
SELECT key, rating
FROM rating_cache
SEMI JOIN wanted USING (key)
