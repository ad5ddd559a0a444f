import { render } from 'preact';
import { Earn } from './app.tsx';
import '../style.css';
import '../parts/form.css';

const root = document.getElementById('app');
if (root) render(<Earn />, root);
