-- As draw_mixture.sql, where an example is drawn in proportion to exp(log_weight): the least of
-- exponential variables with these rates come first (Efraimidis and Spirakis 2006,
-- doi:10.1016/j.ipl.2005.11.003). Each is made from the first 52 bits of the hash that ranks the
-- examples of a mixture that is not tilted, so that without a tilt the order is that one's.
SELECT
    source,
    arg_min(
        example_id,
        ln(-ln(1 - (('0x' || left(sha256($seed || ':' || example_id), 13))::BIGINT + 0.5) / 4503599627370496))
            - log_weight,
        $most
    )
FROM candidates
GROUP BY source
