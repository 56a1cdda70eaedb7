"""Differential privacy: in, secret values and a budget; out, values with noise that nobody knows, what was spent."""

from spuvm.dp.auditing import epsilon_at_least as epsilon_at_least
from spuvm.dp.budget import Budget as Budget
from spuvm.dp.mechanisms import clip as clip
from spuvm.dp.mechanisms import count as count
from spuvm.dp.mechanisms import gaussian as gaussian
from spuvm.dp.mechanisms import histogram as histogram
from spuvm.dp.mechanisms import laplace as laplace
from spuvm.dp.mechanisms import mean as mean
from spuvm.dp.mechanisms import noisy_max as noisy_max
from spuvm.dp.mechanisms import sum as sum
from spuvm.dp.proving import Report as Report
from spuvm.dp.proving import check as check
from spuvm.dp.proving import private as private
from spuvm.dp.selection import above_threshold as above_threshold
from spuvm.dp.selection import groups as groups
from spuvm.dp.selection import quantile as quantile
from spuvm.dp.shared_noise import gaussian_share as gaussian_share
from spuvm.dp.shared_noise import honest_of as honest_of
from spuvm.dp.shared_noise import laplace_share as laplace_share
from spuvm.dp.spending import Spent as Spent
from spuvm.dp.spending import spending as spending
