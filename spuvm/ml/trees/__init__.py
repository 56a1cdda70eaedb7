"""Trees beside boosting: frames come in; trees that no party can read go out, grown on boosting's histograms."""
