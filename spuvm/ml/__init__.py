"""Learning on data of several parties."""

from spuvm.ml.common.estimator import clone as clone
from spuvm.ml.common.estimator import load as load
from spuvm.ml.linear.glm import GammaRegressor as GammaRegressor
from spuvm.ml.linear.glm import PoissonRegressor as PoissonRegressor
from spuvm.ml.linear.glm import TweedieRegressor as TweedieRegressor
from spuvm.ml.linear.least_squares import ElasticNet as ElasticNet
from spuvm.ml.linear.least_squares import Lasso as Lasso
from spuvm.ml.linear.least_squares import LinearRegression as LinearRegression
from spuvm.ml.linear.least_squares import Ridge as Ridge
from spuvm.ml.linear.logistic import LogisticRegression as LogisticRegression
from spuvm.ml.linear.sgd import Perceptron as Perceptron
from spuvm.ml.linear.sgd import SGDClassifier as SGDClassifier
from spuvm.ml.linear.sgd import SGDRegressor as SGDRegressor
from spuvm.ml.linear.svm import LinearSVC as LinearSVC
from spuvm.ml.sgb import Sgb as Sgb
